package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// programs makes the programs of an architecture, and returns the daemon's.
func programs(t *testing.T, arch string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"flannel", "flannel-cni"} {
		if err := os.WriteFile(filepath.Join(dir, name+"-linux-"+arch), []byte(name+" for "+arch), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "flannel-linux-"+arch)
}

// An image has the programs of its architecture, and the paths that manifests call.
func TestImage(t *testing.T) {
	i, err := image(programs(t, "arm64"), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	if i.Architecture != "arm64" || len(i.Entrypoint) != 1 || i.Entrypoint[0] != "/opt/bin/flanneld" || i.Labels["org.opencontainers.image.version"] != "1.2.3" {
		t.Errorf("the image is %+v", i)
	}
	content, leads := make(map[string]string), make(map[string]string)
	for _, f := range i.Files {
		content[f.Path] = string(f.Content)
		if f.To != "" {
			leads[f.Path] = filepath.Join(filepath.Dir(f.Path), f.To)
		}
	}
	if content[program] != "flannel for arm64" || content[plugin] != "flannel-cni for arm64" {
		t.Errorf("the programs are %q", content)
	}
	for _, path := range []string{"bin/cp", "bin/flannel", "opt/bin/install-conf", "opt/bin/mk-docker-opts.sh"} {
		if leads[path] != program {
			t.Errorf("%s leads to %q", path, leads[path])
		}
	}
}

// The archive's name has no character that a tag must not have.
func TestTag(t *testing.T) {
	to := filepath.Join(t.TempDir(), "image.tar")
	if err := run(to, "registry.example/flannel", "1.2.3+git", []string{programs(t, "amd64"), programs(t, "arm64")}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(to); err != nil || !bytes.Contains(text, []byte(`"io.containerd.image.name":"registry.example/flannel:v1.2.3-git"`)) {
		t.Errorf("the name is not in the archive: %v", err)
	}
}

func TestWrongArguments(t *testing.T) {
	to := filepath.Join(t.TempDir(), "image.tar")
	for _, err := range []error{
		run("", "n", "1", []string{"flannel-linux-amd64"}),
		run(to, "n", "", []string{"flannel-linux-amd64"}),
		run(to, "n", "1", nil),
		run(to, "n", "1", []string{"flannel"}),
		run(to, "n", "1", []string{filepath.Join(t.TempDir(), "flannel-linux-amd64")}),
	} {
		if err == nil {
			t.Error("wrong arguments are accepted")
		}
	}
	if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failure leaves the archive: %v", err)
	}
}
