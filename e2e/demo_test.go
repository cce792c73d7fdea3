package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

func TestDemo(t *testing.T) {
	netnstest.Require(t)
	t.Parallel()
	cmd := exec.CommandContext(limited(t), programs.demo, "-flannel="+programs.flannel)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "6 of 6 pairs reach each other.") || !strings.Contains(string(out), "6 of 6 pairs reach each other by IPv6.") {
		t.Errorf("%v:\n%s", err, out)
	}
	leavesNothing(t, cmd)
}

// Ctrl-C goes to the whole process group of a terminal. It stops the demo at
// any time and removes its namespaces.
func TestDemoInterrupted(t *testing.T) {
	netnstest.Require(t)
	t.Parallel()
	for _, after := range []string{"HOST", "Ctrl-C"} {
		out := &logBuffer{}
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), programs.demo, "-flannel="+programs.flannel, "-keep")
		cmd.Stdout, cmd.Stderr = out, out
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		eventually(t, "the demo prints "+after, func() error {
			if !strings.Contains(out.String(), after) {
				return &missingError{after, out.String()}
			}
			return nil
		})
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		<-ended
		leavesNothing(t, cmd)
	}
}

type missingError struct{ want, in string }

func (e *missingError) Error() string { return "no " + e.want + " in\n" + e.in }

// leavesNothing checks that the namespaces of a process are gone.
func leavesNothing(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	left, err := filepath.Glob("/run/netns/netnstest-" + strconv.Itoa(cmd.Process.Pid) + "-*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	mounts, err := exec.CommandContext(t.Context(), "findmnt", "-rn", "-o", "TARGET").Output()
	if err != nil || bytes.Contains(mounts, []byte("netnstest-"+strconv.Itoa(cmd.Process.Pid)+"-")) {
		t.Errorf("mounts left behind: %v", err)
	}
}
