// Package docs compares the documents with the program and the tree.
package docs

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// pages returns the paths of all documents.
func pages(t *testing.T) []string {
	t.Helper()
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(pages, "bench/README.md", "../README.md", "../Godeps/README.md")
}

var (
	link    = regexp.MustCompile(`\]\(([^)]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	// dropped matches the characters of a heading that its anchor on GitHub lacks.
	dropped = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

func anchors(text string) []string {
	var found []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		anchor := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		found = append(found, strings.ReplaceAll(anchor, " ", "-"))
	}
	return found
}

// Each relative link leads to a file of the tree, and each anchor to a heading.
func TestLinks(t *testing.T) {
	links := 0
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			if err := checkLink(t, page, m[1]); err != nil {
				t.Errorf("%s: link %s: %v", page, m[1], err)
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
	for _, broken := range []string{"nosuch.md", "#no-such-heading", "design.md#no-such-heading"} {
		if checkLink(t, "backends.md", broken) == nil {
			t.Errorf("the broken link %s is accepted", broken)
		}
	}
}

func checkLink(t *testing.T, page, to string) error {
	t.Helper()
	file, anchor, hasAnchor := strings.Cut(to, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
	}
	if _, err := os.Stat(target); err != nil {
		return err
	}
	if hasAnchor && !slices.Contains(anchors(read(t, target)), anchor) {
		return errors.New("no such heading")
	}
	return nil
}

var (
	code     = regexp.MustCompile("`([^`\n]+)`")
	treePath = regexp.MustCompile(`^(?:[\w.-]+/)*[\w.-]+/?$`)
	testName = regexp.MustCompile(`^Test[A-Z]\w*$`)
	testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
)

// source is what documents can name: the paths, the names of files, and the tests.
type source struct{ paths, files, tests map[string]bool }

func readSource(t *testing.T) source {
	t.Helper()
	s := source{make(map[string]bool), make(map[string]bool), make(map[string]bool)}
	err := filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel("..", path)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == "bin" || rel == "dist" || rel == ".git"):
			return filepath.SkipDir
		case strings.HasSuffix(rel, "_test.go"):
			for _, m := range testFunc.FindAllStringSubmatch(read(t, path), -1) {
				s.tests[m[1]] = true
			}
		}
		s.paths[rel] = true
		s.files[d.Name()] = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// missing reports whether the word looks like a path or a test of this tree, and
// is none.
func (s source) missing(word string) bool {
	if testName.MatchString(word) {
		return !s.tests[word]
	}
	if !treePath.MatchString(word) {
		return false
	}
	word = strings.TrimSuffix(strings.TrimPrefix(word, "./"), "/")
	top, _, deep := strings.Cut(word, "/")
	if deep {
		return s.paths[top] && !s.paths[word]
	}
	return strings.HasSuffix(word, ".go") && !s.files[word]
}

// Each path and each test that a document has in backticks exists.
func TestPathsAndTests(t *testing.T) {
	tree := readSource(t)
	for _, page := range pages(t) {
		for _, m := range code.FindAllStringSubmatch(read(t, page), -1) {
			if tree.missing(m[1]) {
				t.Errorf("%s: `%s` does not exist", page, m[1])
			}
		}
	}
	for word, want := range map[string]bool{
		"docs/docs_test.go": false, "docs/": false, "docs_test.go": false, "TestLinks": false, "10.5.0.0/16": false,
		"etc/nosuch": false, "docs/nosuch.md": true, "pkg/nosuch": true, "nosuch.go": true, "TestNoSuchThing": true,
	} {
		if got := tree.missing(word); got != want {
			t.Errorf("%s is missing: %v, want %v", word, got, want)
		}
	}
}

var (
	helpFlag    = regexp.MustCompile(`(?m)^  -([a-z][a-z0-9_-]*)`)
	helpDefault = regexp.MustCompile(`\(default (?:"([^"]*)"|([^)"]*))\)`)
	tableRow    = regexp.MustCompile("(?m)^\\| (`-[a-z].*?) \\|(.*?)\\| .* \\|$")
	rowFlag     = regexp.MustCompile("`-([a-z][a-z0-9-]*)`")
)

// logFlags are flags of the log package. flags.md names two of them.
var logFlags = []string{"v", "vmodule", "log_backtrace_at", "logtostderr", "alsologtostderr", "stderrthreshold", "log_dir", "log_link", "logbuflevel", "version", "help"}

// TestFlags compares the flags and defaults in flags.md with those of -help, in
// both directions.
func TestFlags(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "flannel")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", binary, "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	help, err := exec.CommandContext(t.Context(), binary, "-help").Output()
	if err != nil {
		t.Fatal(err)
	}
	defaults := make(map[string]string) // by flag
	starts := helpFlag.FindAllSubmatchIndex(help, -1)
	for i, at := range starts {
		end := len(help)
		if i+1 < len(starts) {
			end = starts[i+1][0]
		}
		name, value := string(help[at[2]:at[3]]), ""
		if d := helpDefault.FindSubmatch(help[at[0]:end]); d != nil {
			value = string(d[1]) + string(d[2])
		}
		defaults[name] = value
	}
	if len(defaults) == 0 {
		t.Fatalf("-help names no flags:\n%s", help)
	}

	listed := make(map[string]bool)
	for _, row := range tableRow.FindAllStringSubmatch(read(t, "flags.md"), -1) {
		for _, m := range rowFlag.FindAllStringSubmatch(row[1], -1) {
			name := m[1]
			listed[name] = true
			value, known := defaults[name]
			if !known && !slices.Contains(logFlags, name) {
				t.Errorf("flags.md lists -%s, which -help does not", name)
			}
			if value != "" && !sameDefault(row[2], value) {
				t.Errorf("flags.md: default of -%s is %q, -help says %q", name, row[2], value)
			}
		}
	}
	for name := range defaults {
		if !listed[name] && !slices.Contains(logFlags, name) {
			t.Errorf("flags.md does not list -%s", name)
		}
	}
}

// sameDefault reports whether the cell contains the value. A cell may hold the
// defaults of several flags, and Go prints 24h as 24h0m0s.
func sameDefault(cell, value string) bool {
	return strings.Contains(cell, strings.TrimSuffix(value, "0m0s")) || strings.Contains(cell, value)
}

func TestPictureIsWellFormed(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(read(t, "packet.svg")))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
