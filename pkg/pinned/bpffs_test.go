package pinned

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

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
