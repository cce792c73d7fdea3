package netnstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// Enclosure is a process tree on a host with a PID namespace of its own: a container
// engine or an init system, whose children would outlive it. All of the tree ends
// with its first process.
type Enclosure struct {
	*Process // unshare, which waits for the tree
	host     *Host
}

// Enclose starts a command that is or becomes unshare(1) with --fork: its first child
// is the first process of a PID namespace. The end of the lab's scope kills the tree,
// and removes the control group that has the name of the host's namespace (Netns).
func (h *Host) Enclose(log io.Writer, name string, args ...string) *Enclosure {
	h.lab.scope.Helper()
	c := h.command(exec.Command(name, args...))
	c.forks = true
	c.Stdout, c.Stderr = log, log
	p, err := c.Launch()
	h.check(err, "start %s", name)
	e := &Enclosure{Process: p, host: h}
	h.lab.scope.Cleanup(func() {
		err := c.Kill()
		<-e.Ended()
		h.check(errors.Join(err, removeCgroup(h.full)), "end %s", name)
	})
	return e
}

// Command prepares a program to run beside the tree, in the namespaces and the root
// folder of its first process.
func (e *Enclosure) Command(ctx context.Context, name string, args ...string) (*Cmd, error) {
	first, err := e.first()
	if err != nil {
		return nil, err
	}
	enter := []string{fmt.Sprintf("--target=%d", first), "--mount", "--uts", "--pid", "--net", "--cgroup", "--root", "--wd", name}
	c := e.host.Command(ctx, "nsenter", append(enter, args...)...)
	c.forks = true
	return c, nil
}

// Path returns the path by which this process reaches a file of the tree.
func (e *Enclosure) Path(name string) (string, error) {
	first, err := e.first()
	return filepath.Join(fmt.Sprintf("/proc/%d/root", first), name), err
}

// first returns the process id of the first process of the PID namespace. A script
// that becomes unshare has other children before.
func (e *Enclosure) first() (int, error) {
	first, ok := firstChild(e.Process.Process.Pid)
	if !ok {
		return 0, errors.New("the enclosure has no process")
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return 0, err
	}
	its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err == nil && its == own {
		err = errors.New("the enclosure has no PID namespace yet")
	}
	return first, err
}

// Kill kills the program; of unshare and nsenter, that is the child. A PID namespace
// lets its first process go when all others are gone (zap_pid_ns_processes in
// kernel/pid_namespace.c), and unshare ends after it.
func (c *Cmd) Kill() error {
	kill := c.Process.Kill
	if child, ok := firstChild(c.Process.Pid); c.forks && ok {
		kill = func() error { return syscall.Kill(child, syscall.SIGKILL) }
	}
	if err := kill(); err != nil && !errors.Is(err, os.ErrProcessDone) && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", c.Path, err)
	}
	return nil
}

// firstChild returns the process id of the first child of pid, if it has one.
func firstChild(pid int) (int, bool) {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", pid))
	if err != nil {
		return 0, false
	}
	first := 0
	_, err = fmt.Sscan(string(children), &first)
	return first, err == nil
}

// removeCgroup removes a tree of control groups. Its own mount works on any machine.
func removeCgroup(name string) error {
	const script = `[ -e /sys/fs/cgroup/cgroup.procs ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup; cd /sys/fs/cgroup; [ ! -d "$1" ] || find "$1" -depth -type d -exec rmdir {} +`
	out, err := exec.Command("unshare", "--mount", "sh", "-euc", script, "sh", name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("remove control groups: %w\n%s", err, out)
	}
	return nil
}
