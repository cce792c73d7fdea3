package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// logTo starts the daemon with its log in a file of the test's own, behind other
// programs, and waits until it is ready. It is killed with the test.
func (n *node) logTo(stderr *os.File, before ...string) *netnstest.Cmd {
	n.t.Helper()
	words := append(append(before, programs.flannel), n.args...)
	cmd := n.Command(context.Background(), words[0], words[1:]...)
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
	})
	n.commandSays(0, "", "wait", "-timeout="+patience.String())
	return cmd
}

// exitCode waits for the end of the program.
func exitCode(t *testing.T, cmd *netnstest.Cmd) int {
	t.Helper()
	kill := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer kill.Stop()
	_ = cmd.Wait() // the code tells
	return cmd.ProcessState.ExitCode()
}

// badKeys writes keys to the store that are worth a line of the log each.
func (c *cluster) badKeys(n int) {
	c.t.Helper()
	long := strings.Repeat("y", 150)
	for i := range n {
		c.keys.put(c.t, fmt.Sprintf("subnets/%s-%d", long, i), "x", 0)
	}
}

// The log's reader stops nothing: not when it has gone, not when it stops
// reading, and not when its disk is full. The daemon learns peers and ends with 0.
func TestLogReaderStopsNothing(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) (stderr, reader *os.File){
		"gone": func(t *testing.T) (*os.File, *os.File) {
			r, w := pipe(t)
			r.Close()
			return w, nil
		},
		"stopped": func(t *testing.T) (*os.File, *os.File) {
			r, w := pipe(t)
			return w, r
		},
		"full disk": func(t *testing.T) (*os.File, *os.File) {
			w, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			return w, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "3")
			n := c.node("a", dataPathFlag+"offload")
			stderr, reader := open(t)
			cmd := n.logTo(stderr)
			stderr.Close()
			c.badKeys(500) // more than a pipe holds
			peer := netip.MustParsePrefix("10.5.200.0/24")
			c.keys.put(t, "subnets/10.5.200.0-24", `{"PublicIP":"192.168.77.200"}`, 0)
			n.awaitPeer(peer, netip.MustParseAddr("192.168.77.200"))
			if text := n.page(metricsPage); name == "full disk" && (strings.Contains(text, "flannel_lost_log_lines_total 0") || !strings.Contains(text, "flannel_lost_log_lines_total")) {
				t.Error("no metric counts the lines that are lost")
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if code := exitCode(t, cmd); code != 0 {
				t.Errorf("exit code %d after SIGTERM, want 0", code)
			}
			if reader != nil {
				reader.Close()
			}
		})
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// What comes last, be it the reason of the end or the trace of a crash, reaches
// standard error.
func TestLogEnds(t *testing.T) {
	c := newCluster(t, "3")
	for sig, last := range map[syscall.Signal]string{
		syscall.SIGTERM: "stopped by a signal",
		syscall.SIGQUIT: "goroutine 1 ", // the runtime's trace, as of a panic
	} {
		name := filepath.Join(t.TempDir(), "log")
		f, err := os.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		n := c.node(fmt.Sprint("s", int(sig)), dataPathFlag+"offload")
		cmd := n.logTo(f)
		f.Close()
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		exitCode(t, cmd)
		if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), last) {
			t.Errorf("%v: no %q in %v\n%s", sig, last, err, text)
		}
	}
}

// A hangup ends no daemon that runs under nohup, and ends another.
func TestIgnoredHangup(t *testing.T) {
	c := newCluster(t, "3")
	for name, words := range map[string][]string{
		"nohup": {"nohup"},
		"shell": {"sh", "-c", `trap "" HUP INT; exec "$@"`, "sh"},
		"none":  nil,
	} {
		n := c.node(name, dataPathFlag+"offload")
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := n.logTo(null, words...)
		null.Close()
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if words == nil {
			if code := exitCode(t, cmd); code != 0 {
				t.Errorf("exit code %d after SIGHUP, want 0", code)
			}
			continue
		}
		if name == "shell" {
			err = cmd.Process.Signal(syscall.SIGINT)
		}
		// SIGTERM comes after the others: the daemon that they end is not ready.
		n.commandSays(0, "ready", "status")
		if err := errors.Join(err, cmd.Process.Signal(syscall.SIGTERM)); err != nil {
			t.Errorf("%s: the daemon has ended: %v", name, err)
		}
		if code := exitCode(t, cmd); code != 0 {
			t.Errorf("%s: exit code %d after SIGTERM, want 0", name, code)
		}
	}
}

// A command whose reader has gone ends by SIGPIPE, as others do; one that cannot
// write says so.
func TestCommandWithoutReader(t *testing.T) {
	c := newCluster(t, "3")
	n := c.node("a")
	for how, want := range map[string]string{
		`"$@" | :; exit ${PIPESTATUS[0]}`: "",
		`"$@" >/dev/full`:                 "no space left on device",
	} {
		for _, line := range []string{"-version", "-help", "help", "man", "completion bash", "leases -etcd-endpoints=" + c.etcd.URL(), "config get -etcd-endpoints=" + c.etcd.URL()} {
			cmd := n.Command(t.Context(), "bash", append([]string{"-c", how, "bash", programs.flannel}, strings.Fields(line)...)...)
			out, err := cmd.CombinedOutput()
			if strings.Contains(string(out), "goroutine ") || !strings.Contains(string(out), want) || want != "" && err == nil {
				t.Errorf("flannel %s, %s: %v, want an error and %q in\n%s", line, how, err, want, out)
			}
		}
	}
}
