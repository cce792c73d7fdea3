package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// launchMounted starts the daemon in a mount namespace of its own, after setup.
// The folder of subnet.env exists by then.
func (n *node) launchMounted(setup string) *daemon {
	n.t.Helper()
	if err := os.MkdirAll(filepath.Dir(n.envFile), 0o755); err != nil {
		n.t.Fatal(err)
	}
	args := []string{"-m", "sh", "-ec", "mount --make-rprivate /\n" + setup + "\nexec \"$@\"", "-", programs.flannel}
	return launchCommand(n.t, n.Host, "unshare", append(args, n.args...)...)
}

// A full file system below /run ends no daemon that runs, and no start beside a
// file that is right.
func TestSubnetFileOnFullFileSystem(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"offload")
	dir := filepath.Dir(a.envFile)
	d := a.launchMounted("mount -t tmpfs -o size=8k none " + dir)
	d.ready()
	inside := filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid), "root")
	text, err := os.ReadFile(filepath.Join(inside, a.envFile))
	if err != nil {
		t.Fatal(err)
	}
	_ = os.WriteFile(filepath.Join(inside, dir, "fill"), make([]byte, 16<<10), 0o600) // until it is full
	a.SetMTU("eth0", 1400)
	d.says("go on with the old subnet file")
	a.SetMTU("eth0", 1500)
	d.stop()

	right := filepath.Join(t.TempDir(), "subnet.env")
	if err := os.WriteFile(right, text, 0o600); err != nil {
		t.Fatal(err)
	}
	d = a.launchMounted("mount -t tmpfs -o size=8k none " + dir + "\ncp " + right + " " + a.envFile + "\nhead -c 16k /dev/zero >" + dir + "/fill || true")
	d.ready()
	d.stop()
}

// A subnet.env that is a mount of a file, as with docker run -v, is written in place.
func TestSubnetFileAsMount(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	file := filepath.Join(t.TempDir(), "subnet.env")
	for _, name := range []string{file, a.envFile} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := a.launchMounted("mount --bind " + file + " " + a.envFile)
	d.ready()
	d.signal(syscall.SIGTERM)
	d.wait()
	a.envFile = file
	if got := a.env()["FLANNEL_SUBNET"]; got == "" {
		t.Error("the mounted file has no FLANNEL_SUBNET")
	}
}
