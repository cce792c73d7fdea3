package main

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// Each mark in the code has one mutation, each mutation a mark and a test.
func TestEveryMarkIsUsed(t *testing.T) {
	marks, err := findMarks(root)
	if err != nil {
		t.Fatal(err)
	}
	used := make(map[string]bool)
	for _, p := range promises {
		for _, m := range p.mutations {
			if used[m.mark] {
				t.Errorf("%s: the table has the mark %s twice", p.name, m.mark)
			}
			used[m.mark] = true
			if _, _, err := m.apply(root, marks); err != nil {
				t.Errorf("%s: %s: %v", p.name, m.mark, err)
			}
			if m.says == "" {
				t.Errorf("%s: %s: the message of %s is missing", p.name, m.mark, m.test)
			}
			if test, _, _ := strings.Cut(m.test, "/"); !slices.Contains(testsOf(t, m.pkg), test) {
				t.Errorf("%s: %s: there is no %s in %s", p.name, m.mark, test, m.pkg)
			}
		}
	}
	for mark, at := range marks {
		if !used[mark] {
			t.Errorf("%s:%d: the table has no mutation for the mark %s", at.file, at.line, mark)
		}
	}
}

var testName = regexp.MustCompile(`(?m)^func (Test\w+)\(`)

func testsOf(t *testing.T, pkg string) (names []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testName.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	return names
}

// A mutation that does not build proves nothing. Mutations of different files
// are built together.
func TestMutationsBuild(t *testing.T) {
	marks, err := findMarks(root)
	if err != nil {
		t.Fatal(err)
	}
	var waiting []mutation
	for _, p := range promises {
		waiting = append(waiting, p.mutations...)
	}
	for len(waiting) > 0 {
		var later []mutation
		changed, folders, names := make(map[string][]byte), make(map[string]bool), ""
		for _, m := range waiting {
			file, text, err := m.apply(root, marks)
			if err != nil {
				t.Fatal(err)
			}
			if changed[file] != nil {
				later = append(later, m)
				continue
			}
			changed[file], names = text, names+" "+m.mark
			folders["./"+path.Dir(marks[m.mark].file)] = true
		}
		layer, err := overlay(t.TempDir(), changed)
		if err != nil {
			t.Fatal(err)
		}
		build := exec.CommandContext(t.Context(), "go", append([]string{"build", "-overlay", layer}, slices.Sorted(maps.Keys(folders))...)...)
		build.Dir = root
		if out, err := build.CombinedOutput(); err != nil {
			t.Errorf("with%s: %v\n%s", names, err, out)
		}
		waiting = later
	}
}

// docs/promises.md has a section for each promise, which names its tests.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/promises.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]string)
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		sections[title] = body
	}
	for _, p := range promises {
		body, ok := sections[p.name]
		if !ok {
			t.Errorf("docs/promises.md has no section %q", p.name)
			continue
		}
		for _, m := range p.mutations {
			if test, _, _ := strings.Cut(m.test, "/"); !strings.Contains(body, "`"+test+"`") {
				t.Errorf("docs/promises.md: the section %q does not name %s", p.name, test)
			}
		}
	}
}

// Each kind of change, on code that compiles before and after it.
func TestChanges(t *testing.T) {
	for _, test := range []struct {
		change    change
		old, want string
	}{
		{never, "if a > b {\n}", "if false && (a > b) {\n}"},
		{never, "switch {\ncase a > b:\n}", ""},
		{always, "if a > b {\n}", "if true || (a > b) {\n}"},
		{withoutOperand, "if a > b || b > c {\n}", "if a > b || false && (b > c) {\n}"},
		{withoutOperand, "if a > b && b > c {\n}", "if a > b && (true || b > c) {\n}"},
		{withoutOperand, "return a - b", "return a - 0 * (b)"},
		{withoutLeaf, "if a > b && (b > c || c > a) {\n}", "if a > b && (b > c || false && (c > a)) {\n}"},
		{withoutLeaf, "return a - b", "return a - 0 * (b)"},
		{withoutLeaf, "return a", ""},
		{withoutOperand, "return a * b", ""},
		{withoutOperand, "return a > b || b > c && c > a", "return a > b || false && (b > c && c > a)"},
		{withoutOperand, "a = b", ""},
		{skip, "a = b", "if false {\na = b\n}"},
		{yields("c"), "return a", "return c"},
		{yields("c, a"), "a, b = b, a", "a, b = c, a"},
		{yields("c"), "a++", ""},
		{yields("("), "return a", ""},
		{skip, "f([]T{\n", ""},
	} {
		head := "package x\n\nfunc f(a, b, c int) int {\n"
		got, err := test.change.apply("x.go", []byte(head+test.old+"\n}\n"), 4)
		if want := head + test.want + "\n}\n"; (err != nil) != (test.want == "") || err == nil && string(got) != want {
			t.Errorf("%s becomes\n%s%v\nwant\n%s", test.old, got, err, want)
		}
	}
	wrapped := "package x\n\nvar a = b > c ||\n\tc > d && d > b\n"
	if got, err := change(withoutOperand).apply("x.go", []byte(wrapped), 4); err != nil || !strings.Contains(string(got), "c > d && (true || d > b)\n") {
		t.Errorf("an operand on a line of its own: %v\n%s", err, got)
	}
	list := "package x\n\nvar a = [][]int{\n\t{1, 2}, // promise: one\n\t{3},\n}\n"
	got, err := change(skip).apply("x.go", []byte(list), 4)
	if want := strings.Replace(list, "{1, 2},", "", 1); err != nil || string(got) != want {
		t.Errorf("the element is not removed: %v\n%s", err, got)
	}
	if _, err := change(never).apply("x.go", []byte(list), 2); err == nil {
		t.Error("a line without a statement is accepted")
	}
	if _, err := change(never).apply("x.go", []byte(list), 4); !errors.Is(err, errNoSuchNode) {
		t.Errorf("a list element as condition: %v, want %v", err, errNoSuchNode)
	}
}

func TestFindMarks(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a.go", "package a\n\nvar a = 1 // promise: one-a\n// promise: a comment alone is none\n")
	write("a/a_test.go", "package a\n\nvar b = 1 // promise: in-a-test\n")
	write("e2e/x.go", "package x\n\nvar b = 1 // promise: in-e2e\n")
	found, err := findMarks(dir)
	if want := (marks{"one-a": {"a/a.go", 3}}); err != nil || !maps.Equal(found, want) {
		t.Errorf("found %v, %v; want %v", found, err, want)
	}
	write("b/b.go", "package b\n\nvar a = 1 // promise: one-a\n")
	if _, err := findMarks(dir); err == nil || !strings.Contains(err.Error(), "b/b.go:3") {
		t.Errorf("a mark at two places: %v", err)
	}
}

// A mutation that a test notices, one that none can, and one that does not build.
// The test needs a flag of the environment, and the overlay has a space in its name.
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
		"sum.go":       "package sum\n\n// Sum adds.\nfunc Sum(a, b int) int {\n\treturn a + b // promise: sum\n}\n",
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
	marks, err := findMarks(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		m          mutation
		line, fail string
	}{
		{m: mutation{"sum", yields("a - b"), ".", "TestSum", "sum is"}, line: "sum_test.go:9: sum is 0"},
		{m: mutation{"sum", yields("a * b"), ".", "TestSum", "sum is"}, fail: "the test passes"},
		{m: mutation{"sum", yields("a - b"), ".", "TestSum", "difference"}, fail: `does not say "difference"`},
		{m: mutation{"sum", yields("a + d"), ".", "TestSum", "sum is"}, fail: "it does not build"},
		{m: mutation{"sum", skip, ".", "TestSum", "sum is"}, fail: "it does not build"},
		{m: mutation{"product", skip, ".", "TestSum", "sum is"}, fail: "no line of the code has the mark product"},
	} {
		line, err := test.m.try(context.WithoutCancel(t.Context()), dir, marks)
		if line != test.line || (err == nil) != (test.fail == "") || err != nil && !strings.Contains(err.Error(), test.fail) {
			t.Errorf("%s: %q, %v; want %q, %q", test.m.mark, line, err, test.line, test.fail)
		}
	}
}
