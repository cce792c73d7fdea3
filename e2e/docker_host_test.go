package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// dockerDropIn is the drop-in with which the tests start Docker, as systemd
// does.
const dockerDropIn = "../contrib/systemd/docker.service.d/flannel.conf"

// guestPort is where a guest answers.
const guestPort = "5000"

// enclose is a shell's script that makes a host's own folders for a Docker
// daemon, all of which go with its mount namespace.
const enclose = `
mount -t tmpfs tmpfs /run
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec "$@"`

// dockerHost is a Docker daemon on a host of the cluster.
type dockerHost struct {
	*node
	dir string // of everything that it keeps; its socket is in it
	log *logBuffer
}

// startDocker runs the drop-in's ExecStart with more options. containerd, its shims and
// the containers end with the daemon.
func (n *node) startDocker(options ...string) *dockerHost {
	n.t.Helper()
	// A socket's path has at most 108 bytes.
	dir, err := os.MkdirTemp("", "docker-")
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { os.RemoveAll(dir) })
	h := &dockerHost{node: n, dir: dir, log: &logBuffer{}}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte(h.config()), 0o600); err != nil {
		n.t.Fatal(err)
	}
	start := h.dropIn("ExecStart")
	args := []string{
		"--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc",
		"sh", "-euc", enclose, "sh",
		start[0], "--host=unix://" + h.socket(), "--config-file=" + config,
		"--data-root=" + filepath.Join(dir, "data"), "--exec-root=" + filepath.Join(dir, "exec"),
		"--pidfile=" + filepath.Join(dir, "pid"), "--storage-driver=vfs", "--cgroup-parent=/" + n.Netns(),
	}
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("log of dockerd on host %s:\n%s", n.Name(), h.log)
		}
	})
	e := n.Enclose(h.log, "unshare", slices.Concat(args, start[1:], options)...)
	eventually(n.t, "dockerd on host "+n.Name()+" answers", func() error {
		select {
		case <-e.Ended():
			n.t.Fatalf("dockerd on host %s has ended", n.Name())
		default:
		}
		c, err := net.Dial("unix", h.socket())
		if err == nil {
			err = c.Close()
		}
		return err
	})
	return h
}

func (h *dockerHost) socket() string { return filepath.Join(h.dir, "socket") }

// config is daemon.json with the setting that docs/docker.md has for Docker
// 28.2 and newer.
func (h *dockerHost) config() string {
	h.t.Helper()
	help, err := exec.CommandContext(h.t.Context(), "dockerd", "--help").Output()
	if err != nil {
		h.t.Fatalf("dockerd --help: %v", err)
	}
	if bytes.Contains(help, []byte("--allow-direct-routing")) {
		return `{"allow-direct-routing": true}`
	}
	return "{}"
}

// dropIn is the last command of the drop-in under a name, as systemd makes it of
// the file: lines joined, subnet.env's variables in place, $$ as $. Options that
// name sockets of systemd's and containerd's are left out.
func (h *dockerHost) dropIn(name string) []string {
	h.t.Helper()
	text, err := os.ReadFile(dockerDropIn)
	if err != nil {
		h.t.Fatal(err)
	}
	var command string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if value, ok := strings.CutPrefix(line, name+"="); ok {
			command = strings.TrimSpace(value)
		}
	}
	env := h.env()
	command = os.Expand(command, func(key string) string {
		if key == "$" {
			return "$"
		}
		return env[key]
	})
	if sh, script, ok := strings.Cut(command, " -ec "); ok {
		return []string{sh, "-ec", strings.Trim(script, "'")}
	}
	var words []string
	for _, word := range strings.Fields(command) {
		if word != "-H" && word != "fd://" && !strings.HasPrefix(word, "--containerd=") {
			words = append(words, word)
		}
	}
	if len(words) == 0 {
		h.t.Fatalf("%s has no %s", dockerDropIn, name)
	}
	return words
}

// acceptOverlay runs the drop-in's ExecStartPost.
func (h *dockerHost) acceptOverlay() {
	h.t.Helper()
	post := h.dropIn("ExecStartPost")
	cmd := h.Command(h.t.Context(), post[0], post[1:]...)
	cmd.Env = os.Environ()
	for key, value := range h.env() {
		cmd.Env = append(cmd.Env, key+"="+value)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("ExecStartPost on host %s: %v\n%s", h.Name(), err, out)
	}
}

// docker runs Docker's command line to its end.
func (h *dockerHost) docker(args ...string) string {
	h.t.Helper()
	out, err := h.tryDocker(args...)
	if err != nil {
		h.t.Fatalf("host %s: docker %s: %v\n%s", h.Name(), strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out)
}

func (h *dockerHost) tryDocker(args ...string) (string, error) {
	h.t.Helper()
	// The package's own: another one in PATH may not speak to its daemon.
	cmd := exec.CommandContext(h.t.Context(), "/usr/bin/docker", append([]string{"--host=unix://" + h.socket()}, args...)...)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+h.dir)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// serve starts a container that answers, and returns its address.
func (h *dockerHost) serve(name string, options ...string) netip.Addr {
	h.t.Helper()
	h.docker(append(append([]string{"run", "--detach", "--name=" + name}, options...), "guest", "serve")...)
	addr, err := netip.ParseAddr(h.docker("inspect", "--format={{.NetworkSettings.IPAddress}}", name))
	if err != nil {
		h.t.Fatal(err)
	}
	return addr
}

// talk runs a client in a new container.
func (h *dockerHost) talk(args ...string) (string, error) {
	h.t.Helper()
	out, err := h.tryDocker(append([]string{"run", "--rm", "guest"}, args...)...)
	if err != nil {
		err = fmt.Errorf("host %s: guest %s: %w\n%s", h.Name(), strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(out), err
}

// buildGuest builds the program of the containers. It has no libraries there,
// so it is never built with the race detector.
func buildGuest(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "guest")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", name, module+"/e2e/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build guest: %v\n%s", err, out)
	}
	return name
}

// guestImage is an archive with guest and nothing else in it.
func guestImage(t *testing.T, guest string) string {
	t.Helper()
	binary, err := os.ReadFile(guest)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err = w.WriteHeader(&tar.Header{Name: "guest", Mode: 0o755, Size: int64(len(binary))})
	if err == nil {
		_, err = w.Write(binary)
	}
	if err == nil {
		err = w.Close()
	}
	name := filepath.Join(t.TempDir(), "guest.tar")
	if err == nil {
		err = os.WriteFile(name, archive.Bytes(), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// serveOn runs a server outside of containers, on a host itself.
func serveOn(t *testing.T, h *netnstest.Host, guest string) {
	t.Helper()
	cmd := h.Command(t.Context(), guest, "serve")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	eventually(t, "guest answers on host "+h.Name(), func() error {
		c, err := h.Dial(t.Context(), "tcp4", "127.0.0.1:"+guestPort)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}
