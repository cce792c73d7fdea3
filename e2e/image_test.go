package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

const imageName = "flannel-e2e"

// loadImage makes the image of this tree's program, as "./build image" does, and
// loads it into Docker.
func loadImage(t *testing.T, h *dockerHost) {
	t.Helper()
	dir := t.TempDir()
	program, archive := filepath.Join(dir, "flannel-linux-"+runtime.GOARCH), filepath.Join(dir, "image.tar")
	for _, args := range [][]string{
		{"build", "-buildvcs=false", "-o", program, module},
		{"build", "-buildvcs=false", "-o", filepath.Join(dir, "flannel-cni-linux-"+runtime.GOARCH), module + "/cni/flannel"},
		{"run", module + "/contrib/image", "-name=" + imageName, "-version=0", "-o=" + archive, program},
	} {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	t.Logf("%s", h.docker("load", "--input", archive))
}

// The image runs the daemon with the rights that the documentation gives it, and has
// the paths that manifests of Kubernetes call.
func TestImage(t *testing.T) {
	const image = imageName + ":v0"
	c := newCluster(t, "3")
	n := c.node("a", dataPathFlag+"offload") // its device ends with it
	n.join().stop()                          // Docker needs a subnet
	h := n.startDocker()
	loadImage(t, h)
	if out := h.docker("run", "--rm", image, "-version"); out == "" {
		t.Error("-version prints nothing")
	}

	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "cni-conf.json"), []byte("{}"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"/opt/bin/install-conf", "/x/cni-conf.json", "/x/net.d/10-flannel.conflist"},
		{"cp", "-f", "/x/cni-conf.json", "/x/copy"},
		{"cp", "-f", "/flannel", "/x/flannel"},
		{"/opt/bin/flanneld", "install-cni", "-program=/flannel", "-bin-dir=/x/bin"},
	} {
		h.docker(append([]string{"run", "--rm", "--volume=" + folder + ":/x", "--entrypoint=" + command[0], image}, command[1:]...)...)
	}
	for path, want := range map[string]os.FileMode{"net.d/10-flannel.conflist": 0o640, "copy": 0o640, "flannel": 0o755, "bin/flannel": 0o755, "bin/portmap": 0o755} {
		if info, err := os.Stat(filepath.Join(folder, path)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info, err, want)
		}
	}

	text, err := os.ReadFile("../docs/docker.md")
	if err != nil {
		t.Fatal(err)
	}
	options := regexp.MustCompile(`(?m)^docker run (--network.*) \\$`).FindSubmatch(text)
	if options == nil {
		t.Fatal("docker.md has no options of docker run")
	}
	state := t.TempDir()
	run := append([]string{"run", "--detach", "--name=flannel", "--volume=" + state + ":/run/flannel", "--volume=" + state + ":/var/lib/flannel"},
		strings.Fields(string(options[1]))...)
	h.docker(append(run, image, "-etcd-endpoints="+c.etcd.URL())...)
	eventually(t, "the program in the container is ready", func() error {
		s, err := n.readStatus()
		if err == nil && !s.Ready {
			err = errors.New("it is not")
		}
		if err != nil {
			out, _ := h.tryDocker("logs", "flannel")
			err = errors.New(err.Error() + "\n" + out)
		}
		return err
	})
	if !n.HasLink("flannel0") {
		t.Error("there is no device")
	}
	h.docker("stop", "flannel")
}
