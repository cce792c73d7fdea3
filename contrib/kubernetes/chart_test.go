// Package kubernetes checks the manifest and the Helm chart: that they agree, that
// the program knows the arguments that they give it, and that they ask for no more
// rights than it needs.
package kubernetes

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the manifests")

// apiVersions are those of an API server, as Helm has them.
type apiVersions []string

// Has reports whether the API server has the kind.
func (a apiVersions) Has(kind string) bool { return slices.Contains(a, kind) }

// An API server before 1.30, and a newer one.
var (
	before = apiVersions{}
	newer  = apiVersions{"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"}
)

// order is that of the objects: an object needs those before it.
var order = []string{"rbac.yaml", "own-node-only.yaml", "config.yaml", "daemonset.yaml"}

const namespace = `apiVersion: v1
kind: Namespace
metadata:
  name: kube-flannel
  labels:
    k8s-app: flannel
    pod-security.kubernetes.io/enforce: privileged
`

type object = map[string]any

// readYAML decodes a file.
func readYAML(t *testing.T, path string) object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var o object
	if err := yaml.UnmarshalStrict(text, &o); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return o
}

// functions are those of Helm and Sprig that the chart uses.
func functions(all *template.Template) template.FuncMap {
	indent := func(n int, s string) string {
		pad := strings.Repeat(" ", n)
		return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
	}
	return template.FuncMap{
		"indent":  indent,
		"nindent": func(n int, s string) string { return "\n" + indent(n, s) },
		"trim":    strings.TrimSpace,
		"quote":   func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"default": func(fallback, given any) any {
			if truth, ok := template.IsTrue(given); ok && truth {
				return given
			}
			return fallback
		},
		"toYaml": func(v any) (string, error) {
			text, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(text), "\n"), err
		},
		"include": func(name string, data any) (string, error) {
			var out bytes.Buffer
			err := all.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
	}
}

// render renders the chart for a new API server, with values that are laid over
// those of values.yaml.
func render(t *testing.T, over object) string {
	t.Helper()
	return renderFor(t, newer, over, order...)
}

// renderFor renders some of the chart's templates for an API server.
func renderFor(t *testing.T, server apiVersions, over object, templates ...string) string {
	t.Helper()
	chart := readYAML(t, "chart/Chart.yaml")
	values := merge(readYAML(t, "chart/values.yaml"), over)
	all := template.New("").Option("missingkey=error")
	all.Funcs(functions(all))
	if _, err := all.ParseGlob("chart/templates/*"); err != nil {
		t.Fatal(err)
	}
	data := object{"Values": values, "Chart": object{"AppVersion": chart["appVersion"], "Name": chart["name"]},
		"Capabilities": object{"APIVersions": server},
		"Release":      object{"Namespace": "kube-flannel", "Name": "flannel", "Service": "Helm"}}
	var out strings.Builder
	for _, name := range templates {
		var part bytes.Buffer
		if err := all.ExecuteTemplate(&part, name, data); err != nil {
			t.Fatal(err)
		}
		if text := strings.TrimSpace(part.String()); text != "" {
			out.WriteString("---\n" + text + "\n")
		}
	}
	return out.String()
}

// merge lays the values of over over those of base.
func merge(base, over object) object {
	for key, value := range over {
		below, isMap := base[key].(object)
		if above, ok := value.(object); ok && isMap {
			value = merge(below, above)
		}
		base[key] = value
	}
	return base
}

// objects decodes a text of several objects.
func objects(t *testing.T, text string) (all []object) {
	t.Helper()
	for _, part := range strings.Split("\n"+text, "\n---\n") {
		var o object
		if err := yaml.UnmarshalStrict([]byte(part), &o); err != nil {
			t.Fatalf("%v\n%s", err, part)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

// find returns the object of a kind and name.
func find(t *testing.T, all []object, kind, name string) object {
	t.Helper()
	for _, o := range all {
		if o["kind"] == kind && at(t, o, "metadata.name") == name {
			return o
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

// at returns the value at a path of keys and of items' names or indices.
func at(t *testing.T, o any, path string) any {
	t.Helper()
	for key := range strings.SplitSeq(path, ".") {
		var next any
		switch v := o.(type) {
		case object:
			next = v[key]
		case []any:
			for i, item := range v {
				if fmt.Sprint(i) == key || nameOf(item) == key {
					next = item
					break
				}
			}
		}
		if next == nil {
			return nil
		}
		o = next
	}
	return o
}

func nameOf(item any) string {
	o, _ := item.(object)
	name, _ := o["name"].(string)
	return name
}

// The manifests are the chart with its own values. The first is for every API
// server.
func TestManifestsAreTheChart(t *testing.T) {
	const made = "# Made from the chart: go test ./contrib/kubernetes -update\n"
	for name, want := range map[string]string{
		"kube-flannel.yml":  made + namespace + renderFor(t, before, nil, order...),
		"own-node-only.yml": made + strings.TrimPrefix(renderFor(t, newer, nil, "own-node-only.yaml"), "---\n"),
	} {
		if *update {
			if err := os.WriteFile(name, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s is not current: %v; run: go test ./contrib/kubernetes -update", name, err)
		}
	}
}

// The image is the one that "./build image" makes of this version.
func TestVersion(t *testing.T) {
	text, err := os.ReadFile("../../version.go")
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`Version = "(.*)"`).FindSubmatch(text)
	chart := readYAML(t, "chart/Chart.yaml")
	want := strings.ReplaceAll(string(version[1]), "+", "-")
	if chart["appVersion"] != want || chart["version"] != want {
		t.Errorf("the chart's version is %v, of %v, want %s", chart["version"], chart["appVersion"], want)
	}
}

// Each value of flannel in values.yaml is in a template. A template that uses a value
// without a default is an error of render.
func TestValuesAreUsed(t *testing.T) {
	templates, err := filepath.Glob("chart/templates/*")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, path := range templates {
		part, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(part)
	}
	for key := range at(t, readYAML(t, "chart/values.yaml"), "flannel").(object) {
		if !regexp.MustCompile(`\.` + key + `\b`).MatchString(text.String()) {
			t.Errorf("no template uses flannel.%s", key)
		}
	}
}
