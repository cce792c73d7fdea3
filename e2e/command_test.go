package e2e

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// command runs one of the program's commands on the node's host, and returns
// its output and exit code.
func (n *node) command(args ...string) (out string, code int) {
	n.t.Helper()
	out, err := output(n.t, n.Host, programs.flannel, args...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	}
	return out, code
}

// commandSays runs a command and wants an exit code and words.
func (n *node) commandSays(wantCode int, want string, args ...string) {
	n.t.Helper()
	if out, code := n.command(args...); code != wantCode || !strings.Contains(out, want) {
		n.t.Errorf("flannel %q: code %d, want %d and %q in\n%s", args, code, wantCode, want, out)
	}
}

// kernelDetails is kernelState with what links are made of, programs included.
func (n *node) kernelDetails() string {
	n.t.Helper()
	links, err := n.Command(n.t.Context(), "ip", "-o", "-d", "link").Output() // it warns of namespaces that go meanwhile
	if err != nil {
		n.t.Fatalf("ip link: %v\n%s", err, links)
	}
	return kernelState(n.t, n.Host) + string(links)
}

func TestCommands(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	a.commandSays(3, "not ready in time", "wait", "-timeout=300ms")
	a.commandSays(1, "is the daemon running?", "status")
	c.joinPair(a, b)
	a.commandSays(0, "", "wait", "-timeout=30s")
	a.commandSays(0, "ready", "status")
	a.commandSays(0, a.subnet().String()+", expires in ", "status")
	a.commandSays(0, `"ready":`, "status", "-json")
	a.awaitPeer(b.subnet(), b.Addr().Addr())
	a.commandSays(0, b.subnet().String()+"   "+b.Addr().Addr().String(), "peers")
	a.commandSays(0, b.subnet().String(), "leases", "-etcd-endpoints="+c.etcd.URL())
	a.commandSays(1, "a daemon runs", "cleanup", "-subnet-file="+a.envFile)
}

// A command that fails says so in one line: the log of what it uses is the
// daemon's alone.
func TestCommandsSayOneLine(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	for _, line := range []string{"leases -timeout=500ms -etcd-endpoints=http://127.0.0.1:1", "status", "rekey -subnet-file=/nonexistent/subnet.env"} {
		words := strings.Fields(line)
		out, code := a.command(words...)
		if code != 1 || strings.Count(out, "\n") != 1 || !strings.HasPrefix(out, "flannel "+words[0]+": ") || strings.HasPrefix(line, "leases") && !strings.Contains(out, "connection refused") {
			t.Errorf("flannel %s: code %d, %q", line, code, out)
		}
	}
}

// After a daemon that was killed, cleanup leaves the kernel as it was before
// the first start.
func TestCleanup(t *testing.T) {
	for name, how := range map[string]struct{ backend, flag string }{
		"udp kernel": {`{"Type": "udp"}`, dataPathFlag + "kernel"},
		"udp":        {`{"Type": "udp"}`, dataPathFlag + "offload"},
		"vxlan":      {`{"Type": "vxlan"}`, ""},
		"host-gw":    {`{"Type": "host-gw"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(how.backend)
			args := []string{"-ip-masq"}
			if how.flag != "" {
				args = append(args, how.flag)
			}
			a, b := c.node("a", args...), c.node("b", args...)
			before := a.kernelDetails()
			d := a.join()
			b.join()
			a.awaitPeer(b.subnet(), b.Addr().Addr())
			d.kill()
			file := "-subnet-file=" + a.envFile
			for range 2 { // it has removed nothing the first time
				a.commandSays(0, "would remove nftables table flannel-", "cleanup", "-dry-run", file)
			}
			a.commandSays(0, "removed nftables table flannel-", "cleanup", file)
			if got := a.kernelDetails(); got != before {
				t.Errorf("after cleanup\n%s\nbefore the first start\n%s", got, before)
			}
			if pins := pinsOf(t, a); len(pins) > 0 {
				t.Errorf("pins are left: %q", pins)
			}
			a.commandSays(0, "nothing to remove", "cleanup", file)
		})
	}
}
