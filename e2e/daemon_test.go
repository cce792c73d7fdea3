package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// daemon is one run of the program on a host.
type daemon struct {
	t       *testing.T
	cmd     *netnstest.Cmd
	log     *logBuffer
	notices *notifySocket
	ended   chan struct{} // closed when cmd has been waited for
}

// launch starts the program inside h. It is killed with the test, at the
// latest; a data race or a crash in it fails the test.
func launch(t *testing.T, h *netnstest.Host, args ...string) *daemon {
	t.Helper()
	return launchCommand(t, h, programs.flannel, args...)
}

// launchCommand does so where another program comes before it.
func launchCommand(t *testing.T, h *netnstest.Host, name string, args ...string) *daemon {
	t.Helper()
	// A socket's path has at most 108 bytes, and a test's own folder is longer.
	dir, err := os.MkdirTemp("", "notify-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	d := &daemon{t: t, log: &logBuffer{}, ended: make(chan struct{})}
	if d.notices, err = listenNotices(socket); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.notices.close)

	d.cmd = h.Command(context.Background(), name, args...)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=200000")
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s on host %s: %v", name, h.Name(), err)
	}
	go func() {
		_ = d.cmd.Wait() // exit reports it
		close(d.ended)
	}()
	t.Cleanup(func() {
		d.signal(syscall.SIGKILL)
		<-d.ended
		text := d.log.String()
		for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(text, bad) {
				t.Errorf("host %s: %s in the daemon", h.Name(), bad)
			}
		}
		if t.Failed() {
			t.Logf("log of %s on host %s:\n%s", filepath.Base(name), h.Name(), text)
		}
	})
	return d
}

func (d *daemon) signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		d.t.Errorf("signal daemon: %v", err)
	}
}

// wait returns how the daemon ended.
func (d *daemon) wait() *os.ProcessState {
	d.t.Helper()
	select {
	case <-d.ended:
		return d.cmd.ProcessState
	case <-time.After(patience):
		d.t.Fatalf("the daemon still runs after %v", patience)
		return nil
	}
}

// stop ends the daemon as systemd does.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	if code := d.wait().ExitCode(); code != 0 {
		d.t.Errorf("exit code %d after SIGTERM, want 0", code)
	}
}

// kill ends the daemon as the kernel does when it is out of memory.
func (d *daemon) kill() {
	d.t.Helper()
	d.signal(syscall.SIGKILL)
	d.wait()
}

// says waits until the log contains text.
func (d *daemon) says(text string) {
	d.t.Helper()
	eventually(d.t, fmt.Sprintf("log says %q", text), func() error {
		if !strings.Contains(d.log.String(), text) {
			return errors.New("it does not")
		}
		return nil
	})
}

// openFiles counts the daemon's file descriptors.
func (d *daemon) openFiles() int {
	d.t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	return len(fds)
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// output runs a command inside h to its end.
func output(t *testing.T, h *netnstest.Host, name string, args ...string) (string, error) {
	t.Helper()
	out, err := h.Command(t.Context(), name, args...).CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s on host %s: %v", name, h.Name(), err)
	}
	return string(out), err
}
