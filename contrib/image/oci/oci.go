// Package oci writes container images to an archive, without a container engine. The
// archive is an OCI image layout (github.com/opencontainers/image-spec,
// image-layout.md), and has the file manifest.json of "docker load" for its first
// image. The same images give the same bytes.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"path"
	"strings"
)

// Image is an image for one architecture of Linux. It has one layer.
type Image struct {
	Architecture string
	Files        []File
	Entrypoint   []string
	Env          []string
	Labels       map[string]string
}

// File is a file of an image: an executable with Content, or a symbolic link To.
type File struct {
	Path    string // without a slash at its begin
	Content []byte
	To      string
}

// Write writes an archive with images of the same name, which ends with a tag. There is
// one for each architecture.
func Write(w io.Writer, name string, images ...Image) error {
	a := &archive{w: tar.NewWriter(w), has: make(map[string]bool)}
	index := imageIndex{SchemaVersion: 2, MediaType: mediaIndex}
	var loads []dockerLoad
	for _, image := range images {
		m, load, err := a.image(image)
		if err != nil {
			return err
		}
		load.RepoTags = []string{name}
		loads = append(loads, load)
		index.Manifests = append(index.Manifests, m)
	}
	all, err := a.json(index, mediaIndex)
	if err != nil {
		return err
	}
	tag := name[strings.LastIndex(name, ":")+1:]
	all.Annotations = map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag}
	for _, file := range []struct {
		name    string
		content any
	}{
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"index.json", imageIndex{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{all}}},
		{"manifest.json", loads[:min(1, len(loads))]},
	} {
		text, err := json.Marshal(file.content)
		if err == nil {
			err = a.file(file.name, text)
		}
		if err != nil {
			return err
		}
	}
	return a.w.Close()
}

// archive is the tar file. Its blobs are named by their digests.
type archive struct {
	w   *tar.Writer
	has map[string]bool
}

func (a *archive) file(name string, content []byte) error {
	if a.has[name] {
		return nil
	}
	a.has[name] = true
	if err := a.w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err := a.w.Write(content)
	return err
}

func (a *archive) blob(content []byte, mediaType string) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(content), Size: len(content)}
	return d, a.file(d.path(), content)
}

func (a *archive) json(content any, mediaType string) (descriptor, error) {
	text, err := json.Marshal(content)
	if err != nil {
		return descriptor{}, err
	}
	return a.blob(text, mediaType)
}

// image writes the blobs of an image.
func (a *archive) image(image Image) (descriptor, dockerLoad, error) {
	plain, err := layer(image.Files)
	if err != nil {
		return descriptor{}, dockerLoad{}, err
	}
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(plain); err != nil {
		return descriptor{}, dockerLoad{}, err
	}
	if err := z.Close(); err != nil {
		return descriptor{}, dockerLoad{}, err
	}
	c := imageConfig{Architecture: image.Architecture, OS: "linux"}
	c.Config.Entrypoint, c.Config.Env, c.Config.Labels = image.Entrypoint, image.Env, image.Labels
	c.RootFS.Type, c.RootFS.DiffIDs = "layers", []string{digest(plain)}
	config, err := a.json(c, mediaConfig)
	if err != nil {
		return descriptor{}, dockerLoad{}, err
	}
	l, err := a.blob(compressed.Bytes(), mediaLayer)
	if err != nil {
		return descriptor{}, dockerLoad{}, err
	}
	d, err := a.json(imageManifest{SchemaVersion: 2, MediaType: mediaManifest, Config: config, Layers: []descriptor{l}}, mediaManifest)
	d.Platform = &platform{Architecture: image.Architecture, OS: "linux"}
	return d, dockerLoad{Config: config.path(), Layers: []string{l.path()}}, err
}

// layer returns the files as a tar file. They have no times.
func layer(files []File) ([]byte, error) {
	var out bytes.Buffer
	l := &layerWriter{w: tar.NewWriter(&out), made: make(map[string]bool)}
	for _, f := range files {
		h := tar.Header{Name: f.Path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(f.Content))}
		if f.To != "" {
			h = tar.Header{Name: f.Path, Linkname: f.To, Typeflag: tar.TypeSymlink, Mode: 0o777}
		}
		if err := l.add(h, f.Content); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), l.w.Close()
}

// layerWriter writes files to a tar file, each after the folders above it.
type layerWriter struct {
	w    *tar.Writer
	made map[string]bool // folders
}

func (l *layerWriter) add(h tar.Header, text []byte) error {
	for _, dir := range parents(h.Name) {
		if l.made[dir] {
			continue
		}
		l.made[dir] = true
		if err := l.w.WriteHeader(&tar.Header{Name: dir + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := l.w.WriteHeader(&h); err != nil {
		return err
	}
	_, err := l.w.Write(text)
	return err
}

// parents returns the folders above the name, the outermost first.
func parents(name string) (dirs []string) {
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
