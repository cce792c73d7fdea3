package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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
	var images []Image
	for _, arch := range []string{"amd64", "arm64"} {
		images = append(images, Image{Architecture: arch, Entrypoint: []string{"/a/b/program"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{"k": "v"},
			Files: []File{{Path: "a/b/program", Content: []byte("for " + arch)}, {Path: "a/link", To: "b/program"}}})
	}
	var out bytes.Buffer
	if err := Write(&out, "registry.example:5000/name:v1", images...); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
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

// Each digest is right, and each image has its files, each after its folder.
func TestWrite(t *testing.T) {
	text := build(t)
	if again := build(t); !bytes.Equal(text, again) {
		t.Error("a second build has other bytes")
	}
	b := blobs{t, untar(t, bytes.NewReader(text))}
	var top, index imageIndex
	if err := json.Unmarshal([]byte(b.files["index.json"]), &top); err != nil || len(top.Manifests) != 1 {
		t.Fatalf("index.json: %v\n%s", err, b.files["index.json"])
	}
	if a := top.Manifests[0].Annotations; a["io.containerd.image.name"] != "registry.example:5000/name:v1" || a["org.opencontainers.image.ref.name"] != "v1" {
		t.Errorf("the annotations are %q", a)
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
	if c.Architecture != d.Platform.Architecture || c.OS != "linux" || fmt.Sprint(c.Config) != "{[PATH=/bin] [/a/b/program] map[k:v]}" {
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
	want := map[string]string{"a/": "", "a/b/": "", "a/b/program": "for " + c.Architecture, "a/link": "-> b/program"}
	if files := untar(b.T, bytes.NewReader(plain)); !maps.Equal(files, want) {
		b.Errorf("the layer has %q, want %q", files, want)
	}
}
