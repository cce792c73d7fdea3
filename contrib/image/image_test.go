package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// untar returns the files of a tar file: content, or "-> " and a link's target.
func untar(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
		if h.Typeflag == tar.TypeSymlink {
			files[h.Name] = "-> " + h.Linkname
		}
	}
}

func build(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	var programs []string
	for _, arch := range []string{"amd64", "arm64"} {
		for _, name := range []string{"flannel", "flannel-cni"} {
			if err := os.WriteFile(filepath.Join(dir, name+"-linux-"+arch), []byte(name+" for "+arch), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		programs = append(programs, filepath.Join(dir, "flannel-linux-"+arch))
	}
	to := filepath.Join(dir, "image.tar")
	if err := run(to, "registry.example/flannel", "1.2.3+git", programs); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// blobs are the blobs of an archive.
type blobs struct {
	*testing.T
	files map[string]string
}

// get decodes the blob after a check of its digest and size.
func (b blobs) get(d descriptor, to any) string {
	b.Helper()
	text := b.files[d.path()]
	if digest([]byte(text)) != d.Digest || len(text) != d.Size {
		b.Fatalf("blob %v has %d bytes and the digest %s", d, len(text), digest([]byte(text)))
	}
	if to != nil {
		if err := json.Unmarshal([]byte(text), to); err != nil {
			b.Fatal(err)
		}
	}
	return text
}

// Each digest is right, and each image has the program and the paths that
// manifests call.
func TestImage(t *testing.T) {
	text := build(t)
	if again := build(t); !bytes.Equal(text, again) {
		t.Error("a second build has other bytes")
	}
	b := blobs{t, untar(t, bytes.NewReader(text))}
	var top, index imageIndex
	if err := json.Unmarshal([]byte(b.files["index.json"]), &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("index.json: %v\n%s", err, b.files["index.json"])
	}
	if name := top.Manifests[0].Annotations["io.containerd.image.name"]; name != "registry.example/flannel:v1.2.3-git" {
		t.Errorf("the name is %q", name)
	}
	b.get(top.Manifests[0], &index)
	var archs []string
	for _, d := range index.Manifests {
		archs = append(archs, d.Platform.Architecture)
		checkImage(b, d)
	}
	if !slices.Equal(archs, []string{"amd64", "arm64"}) {
		t.Errorf("architectures %q", archs)
	}
	var loads []dockerLoad
	if err := json.Unmarshal([]byte(b.files["manifest.json"]), &loads); err != nil || len(loads) != 1 || b.files[loads[0].Config] == "" || b.files[loads[0].Layers[0]] == "" {
		t.Errorf("manifest.json: %v\n%s", err, b.files["manifest.json"])
	}
}

func checkImage(b blobs, d descriptor) {
	b.Helper()
	var m imageManifest
	var c imageConfig
	b.get(d, &m)
	b.get(m.Config, &c)
	if c.Architecture != d.Platform.Architecture || c.OS != "linux" || fmt.Sprint(c.Config.Entrypoint) != "[/opt/bin/flanneld]" {
		b.Errorf("the configuration is %+v", c)
	}
	z, err := gzip.NewReader(strings.NewReader(b.get(m.Layers[0], nil)))
	if err != nil {
		b.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	if c.RootFS.DiffIDs[0] != digest(plain) {
		b.Errorf("the layer has the digest %s, the configuration %s", digest(plain), c.RootFS.DiffIDs[0])
	}
	files := untar(b.T, bytes.NewReader(plain))
	for path, want := range map[string]string{program: "flannel", plugin: "flannel-cni"} {
		if want += " for " + c.Architecture; files[path] != want {
			b.Errorf("%s is %q, want %q", path, files[path], want)
		}
	}
	for _, l := range links {
		to, link := strings.CutPrefix(files[l.path], "-> ")
		if target := filepath.Join(filepath.Dir(l.path), to); !link || target != program {
			b.Errorf("%s is %q, which leads to %s", l.path, files[l.path], target)
		}
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
