package kube

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"

	"github.com/coreos/flannel/contrib/image/oci"
	"github.com/coreos/flannel/e2e/kube/worker"
)

// manifest is the manifest as users apply it.
const manifest = "../../contrib/kubernetes/kube-flannel.yml"

// guestImage is the image of the tests' own pods.
const guestImage = "flannel.test/guest:v1"

// imageSet are the archives of images.
type imageSet struct {
	archives []string
	// program is the daemon's program of the images.
	program string
	// name and newer are flannel's images: the manifest's, and that of an update.
	name, newer string
}

// nodeImages are the images of a cluster with real nodes, built once.
var nodeImages = sync.OnceValues(func() (set imageSet, err error) {
	set.program, err = shipped()
	if err != nil {
		return set, err
	}
	if _, err := build("flannel-cni-linux-"+runtime.GOARCH, module+"/cni/flannel", "0"); err != nil {
		return set, err
	}
	return set, errors.Join(set.makeFlannel(), set.makeGuest())
})

// makeFlannel makes flannel's images, as "./build image" does.
func (s *imageSet) makeFlannel() error {
	text, err := os.ReadFile(manifest)
	if err != nil {
		return err
	}
	image := regexp.MustCompile(`image: (\S+):v(\S+)`).FindSubmatch(text)
	if image == nil {
		return fmt.Errorf("%s has no image", manifest)
	}
	name, version := string(image[1]), string(image[2])
	s.name, s.newer = name+":v"+version, name+":v"+version+".1"
	for _, v := range []string{version, version + ".1"} {
		archive := filepath.Join(filepath.Dir(s.program), v+".tar")
		cmd := exec.CommandContext(context.Background(), "go", "run", "../../contrib/image", "-name="+name, "-version="+v, "-o="+archive, s.program)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("make image %s: %w\n%s", v, err, out)
		}
		s.archives = append(s.archives, archive)
	}
	return nil
}

// makeGuest makes the images of the tests' own pods.
func (s *imageSet) makeGuest() error {
	guest, err := build("guest", module+"/e2e/guest", "0")
	if err != nil {
		return err
	}
	content, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	for name, entrypoint := range map[string][]string{guestImage: {"/guest"}, worker.PauseImage: {"/guest", "wait"}} {
		f, err := os.CreateTemp(filepath.Dir(guest), "image-*.tar")
		if err != nil {
			return err
		}
		image := oci.Image{Architecture: runtime.GOARCH, Entrypoint: entrypoint, Files: []oci.File{{Path: "guest", Content: content}}}
		if err := errors.Join(oci.Write(f, name, image), f.Close()); err != nil {
			return fmt.Errorf("make image %s: %w", name, err)
		}
		s.archives = append(s.archives, f.Name())
	}
	return nil
}
