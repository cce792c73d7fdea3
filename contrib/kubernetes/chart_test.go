// Package kubernetes checks the manifest and the Helm chart: that they agree, that
// the program knows the arguments that they give it, and that they ask for no more
// rights than it needs.
package kubernetes

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/coreos/flannel/contrib/kubernetes/render"
)

var update = flag.Bool("update", false, "write the manifests")

// An API server before 1.30, and a newer one.
var (
	before = render.APIVersions{}
	newer  = render.APIVersions{"admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"}
)

const namespace = `apiVersion: v1
kind: Namespace
metadata:
  name: kube-flannel
  labels:
    k8s-app: flannel
    pod-security.kubernetes.io/enforce: privileged
`

type object = render.Values

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

// renderFor renders some of the chart's templates for an API server.
func renderFor(t *testing.T, server render.APIVersions, over object, templates ...string) string {
	t.Helper()
	text, err := render.Chart("chart", server, over, templates...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// renderNew renders the chart for a new API server.
func renderNew(t *testing.T, over object) string {
	t.Helper()
	return renderFor(t, newer, over, render.Order...)
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
		"kube-flannel.yml":  made + namespace + renderFor(t, before, nil, render.Order...),
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
