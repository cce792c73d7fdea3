// Package render renders the Helm chart without Helm. It has the functions of Helm and
// Sprig that the chart uses, and no others.
package render

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

// Values are the values of a chart.
type Values = map[string]any

// APIVersions are what an API server has, as Helm knows it.
type APIVersions []string

// Has reports whether the API server has the kind.
func (a APIVersions) Has(kind string) bool { return slices.Contains(a, kind) }

// Order is that of the templates: an object needs those before it.
var Order = []string{"rbac.yaml", "own-node-only.yaml", "config.yaml", "daemonset.yaml"}

// Chart renders templates of the chart in a folder, for the namespace kube-flannel, with
// values that are laid over those of values.yaml.
func Chart(folder string, server APIVersions, over Values, templates ...string) (string, error) {
	var chart, values Values
	err := errors.Join(readYAML(filepath.Join(folder, "Chart.yaml"), &chart), readYAML(filepath.Join(folder, "values.yaml"), &values))
	if err != nil {
		return "", err
	}
	all := template.New("").Option("missingkey=error")
	all.Funcs(functions(all))
	if _, err := all.ParseGlob(filepath.Join(folder, "templates", "*")); err != nil {
		return "", err
	}
	data := Values{"Values": merge(values, over), "Chart": Values{"AppVersion": chart["appVersion"], "Name": chart["name"]},
		"Capabilities": Values{"APIVersions": server},
		"Release":      Values{"Namespace": "kube-flannel", "Name": "flannel", "Service": "Helm"}}
	var out strings.Builder
	for _, name := range templates {
		var part bytes.Buffer
		if err := all.ExecuteTemplate(&part, name, data); err != nil {
			return "", err
		}
		if text := strings.TrimSpace(part.String()); text != "" {
			out.WriteString("---\n" + text + "\n")
		}
	}
	return out.String(), nil
}

func readYAML(path string, to any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := yaml.UnmarshalStrict(text, to); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
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

// merge lays the values of over over those of base.
func merge(base, over Values) Values {
	for key, value := range over {
		below, isMap := base[key].(Values)
		if above, ok := value.(Values); ok && isMap {
			value = merge(below, above)
		}
		base[key] = value
	}
	return base
}
