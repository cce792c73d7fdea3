// Command image writes flannel's container image to an archive, without a
// container engine and without a base image.
//
//	go run ./contrib/image -version 0.2.0 -o dist/flannel-image.tar dist/flannel-linux-amd64 dist/flannel-linux-arm64
//
// The archive is an OCI image layout (github.com/opencontainers/image-spec,
// image-layout.md) with an image for each architecture, and the file manifest.json
// of "docker load" for the first one:
//
//	ctr -n k8s.io images import dist/flannel-image.tar
//	docker load -i dist/flannel-image.tar
//	skopeo copy --all oci-archive:dist/flannel-image.tar docker://REGISTRY/flannel
//
// Each image has the daemon's program, and that of the CNI plugins, which is
// flannel-cni-linux-ARCHITECTURE beside it. The other paths that manifests of
// Kubernetes call are links. The same programs and the same version give the same
// bytes.
package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// Paths of programs in an image; they are those of flannel-io's images.
const (
	program = "opt/bin/flanneld"
	plugin  = "flannel" // copied to CNI's folder
)

// links are the other paths, and where each leads.
var links = []struct{ path, to string }{
	{"bin/cp", "../" + program},               // copies the plugin
	{"bin/flannel", "../" + program},          // kubectl exec … flannel status
	{"opt/bin/install-conf", "flanneld"},      // copies the CNI configuration
	{"opt/bin/mk-docker-opts.sh", "flanneld"}, // the options of Docker
}

func main() {
	name := flag.String("name", "ghcr.io/coreos/flannel", "`name` of the image, without a tag")
	version := flag.String("version", "", "`version`; the tag is v and the version")
	to := flag.String("o", "", "`file` to write")
	flag.Parse()
	if err := run(*to, *name, *version, flag.Args()); err != nil {
		fmt.Fprintf(os.Stderr, "image: %v\n", err)
		os.Exit(1)
	}
}

func run(to, name, version string, programs []string) error {
	if to == "" || version == "" || len(programs) == 0 {
		return errors.New("usage: image -version VERSION -o FILE flannel-linux-ARCHITECTURE …")
	}
	f, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	err = write(f, name, version, programs)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	return errors.Join(err, f.Cleanup())
}

// write writes the archive.
func write(w io.Writer, name, version string, programs []string) error {
	a := &archive{w: tar.NewWriter(w), has: make(map[string]bool)}
	tag := name + ":v" + strings.NewReplacer("+", "-", "~", "-").Replace(version)
	index := imageIndex{SchemaVersion: 2, MediaType: mediaIndex}
	var loads []dockerLoad
	for _, path := range programs {
		_, arch, ok := strings.Cut(filepath.Base(path), "-linux-")
		if !ok {
			return fmt.Errorf("the name of %s does not end with -linux-ARCHITECTURE", path)
		}
		m, load, err := a.image(path, arch, version)
		if err != nil {
			return fmt.Errorf("write the image for %s: %w", arch, err)
		}
		load.RepoTags = []string{tag}
		loads = append(loads, load)
		index.Manifests = append(index.Manifests, m)
	}
	all, err := a.json(index, mediaIndex)
	if err != nil {
		return err
	}
	_, short, _ := strings.Cut(tag, ":")
	all.Annotations = map[string]string{"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": short}
	for _, file := range []struct {
		name    string
		content any
	}{
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"index.json", imageIndex{SchemaVersion: 2, MediaType: mediaIndex, Manifests: []descriptor{all}}},
		{"manifest.json", loads[:1]},
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

// image writes the image of one architecture.
func (a *archive) image(path, arch, version string) (descriptor, dockerLoad, error) {
	plain, err := layer(path, filepath.Join(filepath.Dir(path), "flannel-cni-linux-"+arch))
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
	c := imageConfig{Architecture: arch, OS: "linux"}
	c.Config.Entrypoint = []string{"/" + program}
	c.Config.Env = []string{"PATH=/bin:/opt/bin"}
	c.Config.Labels = map[string]string{"org.opencontainers.image.title": "flannel", "org.opencontainers.image.version": version,
		"org.opencontainers.image.licenses": "Apache-2.0"}
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
	d.Platform = &platform{Architecture: arch, OS: "linux"}
	return d, dockerLoad{Config: config.path(), Layers: []string{l.path()}}, err
}

// layer returns the image's files as a tar file. They have no times.
func layer(programFile, pluginFile string) ([]byte, error) {
	var out bytes.Buffer
	l := &layerWriter{w: tar.NewWriter(&out), made: make(map[string]bool)}
	for _, p := range []struct{ path, from string }{{program, programFile}, {plugin, pluginFile}} {
		text, err := os.ReadFile(p.from)
		if err != nil {
			return nil, err
		}
		if err := l.add(tar.Header{Name: p.path, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(text))}, text); err != nil {
			return nil, err
		}
	}
	for _, link := range links {
		if err := l.add(tar.Header{Name: link.path, Linkname: link.to, Typeflag: tar.TypeSymlink, Mode: 0o777}, nil); err != nil {
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

// parents returns the folders above the path, the outermost first.
func parents(path string) (dirs []string) {
	for dir := filepath.Dir(path); dir != "."; dir = filepath.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
	}
	return dirs
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}
