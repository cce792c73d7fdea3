package pinned

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestMountRefused runs itself again where no bpffs can be mounted. The error has the
// remedy. The mount namespace is of a process of its own.
func TestMountRefused(t *testing.T) {
	const marker = "FLANNEL_TEST_MOUNT_REFUSED"
	if want := os.Getenv(marker); want != "" {
		if err := mountBPFFS(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
		return
	}
	netnstest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for setup, want := range map[string]string{
		"umount /sys/fs/bpf": `"mount -t bpf bpf /sys/fs/bpf"`,
		// A kernel without eBPF has no folder bpf there.
		"mount -t tmpfs none /sys/fs": "the kernel has no eBPF (CONFIG_BPF_SYSCALL)",
	} {
		c := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-ec",
			setup+`; exec setpriv --bounding-set=-sys_admin "$0" -test.run '^TestMountRefused$'`, self)
		c.Env = append(os.Environ(), marker+"="+want)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", setup, err, out)
		}
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
