// Command image writes flannel's container image to an archive, without a
// container engine and without a base image.
//
//	go run ./contrib/image -version 0.2.0 -o dist/flannel-image.tar dist/flannel-linux-amd64 dist/flannel-linux-arm64
//
// The archive has an image for each architecture:
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
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/coreos/flannel/contrib/image/oci"
)

// Paths of programs in an image; they are those of flannel-io's images.
const (
	program = "opt/bin/flanneld"
	plugin  = "flannel" // copied to CNI's folder
)

// links are the other paths.
var links = []oci.File{
	{Path: "bin/cp", To: "../" + program},               // copies the plugin
	{Path: "bin/flannel", To: "../" + program},          // kubectl exec … flannel status
	{Path: "opt/bin/install-conf", To: "flanneld"},      // copies the CNI configuration
	{Path: "opt/bin/mk-docker-opts.sh", To: "flanneld"}, // the options of Docker
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
	var images []oci.Image
	for _, path := range programs {
		i, err := image(path, version)
		if err != nil {
			return err
		}
		images = append(images, i)
	}
	f, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	tag := "v" + strings.NewReplacer("+", "-", "~", "-").Replace(version)
	err = oci.Write(f, name+":"+tag, images...)
	if err == nil {
		err = f.CloseAtomicallyReplace()
	}
	return errors.Join(err, f.Cleanup())
}

// image returns the image of a program.
func image(path, version string) (oci.Image, error) {
	_, arch, ok := strings.Cut(filepath.Base(path), "-linux-")
	if !ok {
		return oci.Image{}, fmt.Errorf("the name of %s does not end with -linux-ARCHITECTURE", path)
	}
	i := oci.Image{
		Architecture: arch, Entrypoint: []string{"/" + program}, Env: []string{"PATH=/bin:/opt/bin"},
		Labels: map[string]string{"org.opencontainers.image.title": "flannel", "org.opencontainers.image.version": version,
			"org.opencontainers.image.licenses": "Apache-2.0"},
	}
	for _, p := range []struct{ path, from string }{
		{program, path}, {plugin, filepath.Join(filepath.Dir(path), "flannel-cni-linux-"+arch)},
	} {
		text, err := os.ReadFile(p.from)
		if err != nil {
			return oci.Image{}, fmt.Errorf("read a program for %s: %w", arch, err)
		}
		i.Files = append(i.Files, oci.File{Path: p.path, Content: text})
	}
	i.Files = append(i.Files, links...)
	return i, nil
}
