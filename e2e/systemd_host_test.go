package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// systemdHost is a host with systemd and its own root.
type systemdHost struct {
	*netnstest.Host
	t         *testing.T
	enclosure *netnstest.Enclosure
}

// bootSystemd boots a host and waits until its systemd takes commands.
func bootSystemd(t *testing.T, h *netnstest.Host) *systemdHost {
	t.Helper()
	log := &logBuffer{}
	s := &systemdHost{Host: h, t: t}
	s.enclosure = h.Enclose(log, "unshare", "--mount", "sh", "testdata/systemd.sh", t.TempDir(), h.Netns())
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := s.try("journalctl", "--no-pager", "--lines=100")
			t.Logf("systemd on host %s:\n%s\n%s", h.Name(), log, out)
		}
	})
	eventually(t, "systemd on host "+h.Name()+" has booted", func() error {
		select {
		case <-s.enclosure.Ended():
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
	cmd, err := s.enclosure.Command(context.WithoutCancel(s.t.Context()), name, args...)
	if err != nil {
		return "", err
	}
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
	path, err := s.enclosure.Path(to)
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(path, text, 0o644)
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
