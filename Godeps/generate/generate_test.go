package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func root(t *testing.T) string {
	t.Helper()
	dir, err := moduleRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestFilesAreCurrent(t *testing.T) {
	if err := run(t.Context(), true); err != nil {
		t.Error(err)
	}
}

// reasonRow is a row of the table in Godeps/README.md:
// | `module` | reason | licence |
var reasonRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.+) \\| (.+) \\|$")

func TestEveryDirectDependencyHasItsReason(t *testing.T) {
	modules, err := direct(t.Context(), root(t))
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(root(t), "Godeps", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	inBinary, err := linked(t.Context(), root(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range modules { // what is linked in has more packages, and so perhaps licences
		at := slices.IndexFunc(inBinary, func(l *module) bool { return l.path == m.path })
		if at >= 0 {
			modules[i] = inBinary[at]
		}
	}
	licenseOf := make(map[string]string)
	for _, row := range reasonRow.FindAllStringSubmatch(string(readme), -1) {
		licenseOf[row[1]] = row[3]
	}
	for _, m := range modules {
		if err := m.findLicenses(); err != nil {
			t.Error(err)
		}
		switch stated, there := licenseOf[m.path]; {
		case !there:
			t.Errorf("Godeps/README.md: no row for %s (%s); say why it is there", m.path, m.id())
		case stated != m.id():
			t.Errorf("Godeps/README.md: %s: licence %q, want %q", m.path, stated, m.id())
		}
		delete(licenseOf, m.path)
	}
	for path := range licenseOf {
		t.Errorf("Godeps/README.md: row for %s, which nothing imports", path)
	}
}

// Of the two tables, the first has what the program's own packages import, the
// second what only tests and tools do.
func TestReasonsAreInTheRightTable(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(root(t), "Godeps", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	first, second, found := strings.Cut(string(readme), "### In tests and tools only")
	if !found {
		t.Fatal("Godeps/README.md has no second table")
	}
	var imports []string
	for _, p := range platforms {
		packages, err := list(t.Context(), root(t), p, "-deps", ".")
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range packages {
			if l.Module != nil && l.Module.Main {
				imports = append(imports, l.Imports...)
			}
		}
	}
	modules, err := direct(t.Context(), root(t))
	if err != nil {
		t.Fatal(err)
	}
	inProgram := make(map[string]bool)
	for _, path := range imports {
		owner := ""
		for _, m := range modules {
			if strings.HasPrefix(path+"/", m.path+"/") && len(m.path) > len(owner) {
				owner = m.path
			}
		}
		inProgram[owner] = true
	}
	for i, table := range []string{first, second} {
		for _, row := range reasonRow.FindAllStringSubmatch(table, -1) {
			if inProgram[row[1]] != (i == 0) {
				t.Errorf("Godeps/README.md: %s is in the wrong table: the program imports it: %v", row[1], inProgram[row[1]])
			}
		}
	}
}

// TestManifestMatchesGoMod: each module of the manifest is required by go.mod in
// that version.
func TestManifestMatchesGoMod(t *testing.T) {
	gomod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root(t), "Godeps", "manifest.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if f[0] == "#" || f[0] == "std" {
			continue
		}
		lines++
		if !regexp.MustCompile(`(?m)\b` + regexp.QuoteMeta(f[0]+" "+f[1]) + `( |$)`).Match(gomod) {
			t.Errorf("go.mod does not require %s %s", f[0], f[1])
		}
	}
	if lines == 0 {
		t.Error("the manifest is empty")
	}
}

const mit = `Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
`

func TestFindLicenses(t *testing.T) {
	for name, tt := range map[string]struct {
		files map[string]string
		id    string // empty: an error
	}{
		"plain":            {map[string]string{"LICENSE": mit}, "MIT"},
		"british, suffix":  {map[string]string{"LICENCE.md": mit}, "MIT"},
		"notice beside it": {map[string]string{"LICENSE": mit, "NOTICE": "by us"}, "MIT"},
		"in the package":   {map[string]string{"sub/COPYING": mit}, "MIT"},
		"elsewhere":        {map[string]string{"other/LICENSE": mit}, ""},
		"source file":      {map[string]string{"license.go": mit}, ""},
		"none":             {nil, ""},
		"notice only":      {map[string]string{"NOTICE": mit}, ""},
		"unknown text":     {map[string]string{"LICENSE": "Do what you like."}, ""},
		"mostly unknown":   {map[string]string{"LICENSE": mit + strings.Repeat("But first you pay us ten crowns.\n", 50)}, ""},
		"one of two":       {map[string]string{"LICENSE": mit, "COPYING": "Pay us."}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := &module{path: "example.org/m", dir: t.TempDir()}
			m.packages = []string{filepath.Join(m.dir, "sub", "package")}
			if err := os.MkdirAll(m.packages[0], 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range tt.files {
				path := filepath.Join(m.dir, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			err := m.findLicenses()
			if (err == nil) != (tt.id != "") || err == nil && m.id() != tt.id {
				t.Errorf("findLicenses: %v, id %q; want %q", err, m.id(), tt.id)
			}
		})
	}
}

func TestCheckNoticesStaleFiles(t *testing.T) {
	dir := t.TempDir()
	f := files{"a": []byte("new")}
	if err := f.check(dir); err == nil {
		t.Error("a missing file passes as current")
	}
	if err := f.write(dir); err != nil {
		t.Fatal(err)
	}
	if err := f.check(dir); err != nil {
		t.Errorf("a file just written: %v", err)
	}
	if err := (files{"a": []byte("newer")}).check(dir); err == nil || !strings.Contains(err.Error(), "go run ./Godeps/generate") {
		t.Errorf("a stale file: %v, want an error with the command", err)
	}
}

func TestGoCommandReportsWhy(t *testing.T) {
	if _, err := list(context.WithoutCancel(t.Context()), root(t), platforms[0], "./no/such/folder"); err == nil || !strings.Contains(err.Error(), "no/such/folder") {
		t.Errorf("error %v, want the go command's own words", err)
	}
}
