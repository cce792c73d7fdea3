package link

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildBridge builds a program as the plugin bridge of v1.9.1, and returns its path.
func buildBridge(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                              "module test\n\ngo 1.26\n\nrequire " + module + " v1.9.1\n\nreplace " + module + " => ./plugins\n",
		"plugins/go.mod":                      "module " + module + "\n\ngo 1.26\n",
		"plugins/plugins/main/bridge/main.go": "package main\n\nfunc main() {}\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o=bridge", module+"/plugins/main/bridge")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return filepath.Join(dir, "bridge")
}

// A plugin of the bundled version or of an older one has a substitute. A newer one,
// another plugin's program and a script have none.
func TestIsBuild(t *testing.T) {
	path := buildBridge(t)
	renamed := filepath.Join(t.TempDir(), "portmap")
	if err := os.Symlink(path, renamed); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "bridge")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		file, bundled string
		want          bool
	}{
		{path, "v1.9.1", true},
		{path, "v1.10.0", true},
		{path, "v1.9.0", false},
		{path, "", false},
		{renamed, "v1.9.1", false},
		{script, "v1.9.1", false},
		{filepath.Join(t.TempDir(), "bridge"), "v1.9.1", false},
	} {
		if got := isBuild(test.file, test.bundled); got != test.want {
			t.Errorf("%s, with %q bundled: %v", test.file, test.bundled, got)
		}
	}
}
