package pinned

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Without the right to mount, the error has the command. The mount namespace is of a
// process of its own.
func TestMountRefused(t *testing.T) {
	const marker = "FLANNEL_TEST_MOUNT_REFUSED"
	if os.Getenv(marker) != "" {
		if err := mountBPFFS(); err == nil || !strings.Contains(err.Error(), `"mount -t bpf bpf /sys/fs/bpf"`) {
			t.Errorf("error %v", err)
		}
		return
	}
	netnstest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-ec",
		`umount /sys/fs/bpf; exec setpriv --bounding-set=-sys_admin "$0" -test.run '^TestMountRefused$'`, self)
	c.Env = append(os.Environ(), marker+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestParent reads the parent of a process whose name looks like fields of its stat.
func TestParent(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x) R 1 (y")
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(sleep, name); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), name, "60") // until it is killed
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	if got := parent(c.Process.Pid); got != os.Getpid() {
		t.Errorf("parent is %d, want %d", got, os.Getpid())
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait()           // it was killed, so this returns an error
	const nobody = 1 << 23 // above the kernel's PID_MAX_LIMIT
	for _, pid := range []int{1, nobody} {
		if got := parent(pid); got != 0 {
			t.Errorf("parent of %d is %d, want none", pid, got)
		}
	}
}
