package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// place is a line of a file of the tree.
type place struct {
	file string // relative to the root
	line int    // from 1
}

// marks holds the place of each mark by the mark's name.
type marks map[string]place

var markComment = regexp.MustCompile(`\S.*// promise: ([a-z0-9-]+)$`)

// findMarks returns the marks in the Go files below root, tests and this tool
// excepted. A name that occurs twice is an error.
func findMarks(root string) (marks, error) {
	found := make(marks)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && (rel == "e2e" || rel == "bin" || rel == "dist" || rel != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(text), "\n") {
			m := markComment.FindStringSubmatch(line)
			if m == nil {
				continue
			}
			if other, ok := found[m[1]]; ok {
				return fmt.Errorf("mark %s is at %s:%d and at %s:%d", m[1], other.file, other.line, rel, i+1)
			}
			found[m[1]] = place{filepath.ToSlash(rel), i + 1}
		}
		return nil
	})
	return found, err
}
