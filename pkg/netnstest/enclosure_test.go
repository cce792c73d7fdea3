package netnstest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The end of a scope ends each process of an enclosure, and removes its control groups.
func TestEnclosure(t *testing.T) {
	Require(t)
	const (
		mounted = `[ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup; `
		tree    = mounted + `mkdir -p "/sys/fs/cgroup/$1/below"; sleep 1000 & echo $$ >"/sys/fs/cgroup/$1/below/cgroup.procs"; sleep 1000`
	)
	var log bytes.Buffer
	var cgroup string
	var child int
	var p Program
	if err := p.Do(func() error {
		h := New(&p).Host("a")
		cgroup = h.Netns()
		e := h.Enclose(&log, "unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "sh", "-euc", tree, "sh", cgroup)
		Eventually(t, "the tree", func() error {
			c, err := e.Command(t.Context(), "sh", "-euc", `ls "/sys/fs/cgroup/$1/below"; pgrep -c sleep | grep -x 2`, "sh", cgroup)
			if err != nil {
				return err
			}
			out, err := c.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			return err
		})
		first, err := e.first()
		child, _ = firstChild(first)
		return err
	}); err != nil {
		t.Fatalf("%v\n%s", err, &log)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", child)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("process %d: %v", child, err)
	}
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-euc", mounted+"ls /sys/fs/cgroup").CombinedOutput()
	if err != nil || strings.Contains(string(out), cgroup) {
		t.Errorf("control groups: %v\n%s", err, out)
	}
}
