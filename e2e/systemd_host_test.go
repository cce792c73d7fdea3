package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// systemdHost is a host with systemd and its own root.
type systemdHost struct {
	*netnstest.Host
	t       *testing.T
	unshare *os.Process
	root    string // on the machine; the host's root is mounted there for the host only
}

// bootSystemd boots a host and waits until its systemd takes commands.
func bootSystemd(t *testing.T, h *netnstest.Host) *systemdHost {
	t.Helper()
	s := &systemdHost{Host: h, t: t, root: t.TempDir()}
	cgroup := fmt.Sprintf("systemd-%d-%s", os.Getpid(), h.Name())
	t.Cleanup(func() { removeCgroup(t, cgroup) })
	log := &logBuffer{}
	cmd := h.Command(context.Background(), "unshare", "--mount", "sh", "testdata/systemd.sh", s.root, cgroup)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.unshare = cmd.Process
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.try("journalctl", "--no-pager", "--lines=100")
			t.Logf("systemd on host %s:\n%s\n%s", h.Name(), log, out)
		}
		killEnclosed(cmd.Process)
		<-ended
	})
	eventually(t, "systemd on host "+h.Name()+" has booted", func() error {
		select {
		case <-ended:
			t.Fatalf("systemd on host %s has ended:\n%s", h.Name(), log)
		default:
		}
		out, err := s.try("systemctl", "is-active", "multi-user.target")
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
	return s
}

// try runs a command on the host, beside its systemd.
func (s *systemdHost) try(name string, args ...string) (string, error) {
	s.t.Helper()
	init, ok := firstChild(s.unshare)
	if !ok {
		return "", errors.New("systemd does not run yet")
	}
	enter := []string{fmt.Sprintf("--target=%d", init), "--mount", "--pid", "--net", "--cgroup", "--root", "--wd", name}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), "nsenter", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive"}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (s *systemdHost) run(name string, args ...string) string {
	s.t.Helper()
	out, err := s.try(name, args...)
	if err != nil {
		s.t.Fatalf("host %s: %s %s: %v\n%s", s.Name(), name, strings.Join(args, " "), err, out)
	}
	return out
}

// write writes a file below the host's root.
func (s *systemdHost) write(name, text string) {
	s.t.Helper()
	s.run("sh", "-euc", `mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1"`, "sh", name, text)
}

// copyIn copies a file of the machine to the host.
func (s *systemdHost) copyIn(from, to string) {
	s.t.Helper()
	init, _ := firstChild(s.unshare)
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(filepath.Join(fmt.Sprintf("/proc/%d/root", init), to), text, 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// files lists the files on the host, except the records of the package manager.
func (s *systemdHost) files() string {
	s.t.Helper()
	return s.run("sh", "-euc", `find /.usr/upper /usr/lib/systemd/system /etc /var ! -path "/var/lib/dpkg*" ! -type d | sort`)
}

// property is one of the unit's, as systemd has it.
func (s *systemdHost) property(unit, name string) string {
	s.t.Helper()
	return s.run("systemctl", "show", "--property="+name, "--value", unit)
}
