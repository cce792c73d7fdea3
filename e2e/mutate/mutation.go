package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// limit bounds a test that waits for ever without the line.
const limit = 2 * time.Minute

// promise is one that flannel makes.
type promise struct {
	name      string // the heading in docs/promises.md
	mutations []mutation
}

// mutation is a change of the code that breaks a promise.
type mutation struct {
	mark   string // the line ends with "// promise: " and the mark
	change change
	pkg    string // the package that has test, relative to the root
	test   string // "TestName" or "TestName/sub"
	says   string // part of the test's message of failure
}

// apply returns the path and the text of the file with the mutation.
func (m mutation) apply(root string, marks marks) (path string, text []byte, err error) {
	at, ok := marks[m.mark]
	if !ok {
		return "", nil, fmt.Errorf("no line of the code has the mark %s", m.mark)
	}
	path, err = filepath.Abs(filepath.Join(root, at.file))
	if err != nil {
		return "", nil, err
	}
	text, err = os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	text, err = m.change.apply(at.file, text, at.line)
	return path, text, err
}

// overlay writes changed files to dir and returns the path of go build's overlay.
func overlay(dir string, changed map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for path, text := range changed {
		copied := filepath.Join(dir, strconv.Itoa(len(replace))+".go")
		if err := os.WriteFile(copied, text, 0o600); err != nil {
			return "", err
		}
		replace[path] = copied
	}
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	name := filepath.Join(dir, "overlay.json")
	return name, os.WriteFile(name, content, 0o600)
}

// try runs the test with the mutation and returns the line of its failure. It
// returns an error if the test passes, does not build, or fails otherwise.
func (m mutation) try(ctx context.Context, root string, marks marks) (line string, err error) {
	path, text, err := m.apply(root, marks)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	layer, err := overlay(dir, map[string][]byte{path: text})
	if err != nil {
		return "", err
	}
	flags, err := exec.CommandContext(ctx, "go", "env", "GOFLAGS").Output() // of the environment or go env -w
	if err != nil {
		return "", fmt.Errorf("read GOFLAGS: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", limit.String(), "-run", anchored(m.test), "./"+m.pkg)
	cmd.Dir = root
	// The environment reaches the programs that the test builds, too.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOFLAGS=%s '-overlay=%s'", strings.TrimSpace(string(flags)), layer))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	return m.verdict(string(out), err)
}

// verdict finds the line of the expected failure in the output of go test.
func (m mutation) verdict(out string, err error) (string, error) {
	switch {
	case err == nil:
		return "", errors.New("the test passes")
	case strings.Contains(out, "[build failed]"):
		return "", fmt.Errorf("it does not build: %s", out)
	}
	for line := range strings.Lines(out) {
		if m.says != "" && strings.Contains(line, m.says) {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("it fails, but does not say %q:\n%s", m.says, out)
}

// anchored returns a pattern of go test for one test alone.
func anchored(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	return strings.Join(parts, "/")
}
