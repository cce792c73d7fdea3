package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// limit bounds a test that waits for ever without the line.
const limit = 2 * time.Minute

// promise is one that flannel makes.
type promise struct {
	// name is the one in the README.
	name string
	// violation is how to raise it by hand.
	violation string
	mutations []mutation
}

// mutation is a change of the code by which a promise is no longer kept.
type mutation struct {
	// file, relative to the root, has old once; in its place stands new.
	file, old, new string
	// pkg, relative to the root, has test: "TestName" or "TestName/sub".
	pkg, test string
	// says is what the test says then, or a part of it.
	says string
}

// apply returns the file with the mutation, of the tree at root.
func (m mutation) apply(root string) (path string, source []byte, err error) {
	path, err = filepath.Abs(filepath.Join(root, m.file))
	if err != nil {
		return "", nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", nil, err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return "", nil, fmt.Errorf("%s has %q %d times, want once", m.file, m.old, n)
	}
	return path, []byte(strings.Replace(string(text), m.old, m.new, 1)), nil
}

// try runs the test with the mutation and returns the line by which it failed.
// That it passes, does not build, or fails by something else is an error.
func (m mutation) try(ctx context.Context, root string) (line string, err error) {
	path, source, err := m.apply(root)
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "mutate-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	mutated, overlay := filepath.Join(dir, "mutated.go"), filepath.Join(dir, "overlay.json")
	content, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutated}})
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(mutated, source, 0o600), os.WriteFile(overlay, content, 0o600)); err != nil {
		return "", err
	}
	flags, err := exec.CommandContext(ctx, "go", "env", "GOFLAGS").Output() // of the environment or go env -w
	if err != nil {
		return "", fmt.Errorf("ask for GOFLAGS: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-count=1", "-timeout", limit.String(), "-run", anchored(m.test), "./"+m.pkg)
	cmd.Dir = root
	// In the environment it holds for the programs that the test builds, too.
	cmd.Env = append(os.Environ(), fmt.Sprintf("GOFLAGS=%s '-overlay=%s'", strings.TrimSpace(string(flags)), overlay))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return "", errors.New("the test passes")
	case strings.Contains(string(out), "[build failed]"):
		return "", fmt.Errorf("it does not build: %s", out)
	}
	for line := range strings.Lines(string(out)) {
		if m.says != "" && strings.Contains(line, m.says) {
			return strings.TrimSpace(line), nil
		}
	}
	return "", fmt.Errorf("it fails, but does not say %q:\n%s", m.says, out)
}

// anchored is a pattern of go test for one test alone.
func anchored(test string) string {
	parts := strings.Split(test, "/")
	for i, p := range parts {
		parts[i] = "^" + p + "$"
	}
	return strings.Join(parts, "/")
}
