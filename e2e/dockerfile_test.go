package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The Dockerfile's commands make an image that is the program and nothing else,
// and the program sets up its network in it, with the capability that they name.
func TestDockerfile(t *testing.T) {
	c := newCluster(t, "3")
	n := c.node("a", dataPathFlag+"offload") // its device ends with it
	n.join().stop()                          // Docker needs a subnet
	h := n.startDocker()
	dist := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dist, "flannel-linux-"+runtime.GOARCH), module)
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // "./build all", of one architecture
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	// The builder that every version of Docker has.
	t.Logf("%s", h.docker("build", "--quiet", "--build-arg=TARGETARCH="+runtime.GOARCH, "--tag=flannel", "--file=../contrib/docker/Dockerfile", dist))
	if out := h.docker("run", "--rm", "flannel", "-version"); out == "" {
		t.Error("-version says nothing")
	}

	text, err := os.ReadFile("../contrib/docker/Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	var options []string
	for _, word := range strings.Fields(string(text)) {
		if name, _, _ := strings.Cut(word, "="); name == "--network" || name == "--cap-drop" || name == "--cap-add" || name == "--device" {
			options = append(options, word)
		}
	}
	if len(options) != 4 {
		t.Fatalf("the Dockerfile's options are %q", options)
	}
	state := t.TempDir()
	h.docker(append(append([]string{"run", "--detach", "--name=flannel", "--volume=" + state + ":/run/flannel", "--volume=" + state + ":/var/lib/flannel"}, options...),
		"flannel", "-etcd-endpoints="+c.etcd.URL())...)
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
