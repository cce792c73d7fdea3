package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// The page is what the table says, and the table what the code says.
func TestPage(t *testing.T) {
	got, err := os.ReadFile(filepath.Join(root, "docs/promises.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != page(promises) {
		t.Error("docs/promises.md is not what the table says; run go run ./e2e/mutate -doc >docs/promises.md")
	}
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range promises[:len(promises)-1] { // the last is no promise about leases
		if !strings.Contains(string(readme), "\n| "+p.name+" | ") {
			t.Errorf("the README does not promise %q", p.name)
		}
	}
}

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

func TestTableIsOfThisTree(t *testing.T) {
	for _, p := range promises {
		for _, m := range p.mutations {
			if _, _, err := m.apply(root); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
			if m.says == "" {
				t.Errorf("%s: %s: what the test says is missing", p.name, m.test)
			}
			files, err := filepath.Glob(filepath.Join(root, m.pkg, "*_test.go"))
			if err != nil {
				t.Fatal(err)
			}
			want, _, _ := strings.Cut(m.test, "/")
			found := false
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range testName.FindAllStringSubmatch(string(text), -1) {
					found = found || name[1] == want
				}
			}
			if !found {
				t.Errorf("%s: there is no %s in %s", p.name, want, m.pkg)
			}
		}
	}
}

// A mutation that a test notices, one that none can, and one that does not build.
// The test needs a flag of whoever calls, and the overlay has a space in its name.
func TestTry(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GOFLAGS", "-tags=ours")
	spaced := filepath.Join(dir, "a b")
	t.Setenv("TMPDIR", spaced)
	if err := os.Mkdir(spaced, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":       "module example.com/sum\n",
		"sum.go":       "package sum\n\n// Sum adds.\nfunc Sum(a, b int) int { return a + b }\n",
		"sum_test.go":  "//go:build ours\n\npackage sum\n\nimport \"testing\"\n\nfunc TestSum(t *testing.T) {\n\tif got := Sum(2, 2); got != 4 {\n\t\tt.Errorf(\"sum is %d\", got)\n\t}\n}\n",
		"other/one.go": "package other\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		m          mutation
		line, fail string
	}{
		{m: mutation{"sum.go", "a + b", "a - b", ".", "TestSum", "sum is"}, line: "sum_test.go:9: sum is 0"},
		{m: mutation{"sum.go", "a + b", "a * b", ".", "TestSum", "sum is"}, fail: "the test passes"},
		{m: mutation{"sum.go", "a + b", "a - b", ".", "TestSum", "difference"}, fail: `does not say "difference"`},
		{m: mutation{"sum.go", "a + b", "a +", ".", "TestSum", "sum is"}, fail: "it does not build"},
		{m: mutation{"sum.go", "a", "b", ".", "TestSum", "sum is"}, fail: "times, want once"},
	} {
		line, err := test.m.try(context.WithoutCancel(t.Context()), dir)
		if line != test.line || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s for %s: %q, %v; want %q, %q", test.m.new, test.m.old, line, err, test.line, test.fail)
		}
	}
}
