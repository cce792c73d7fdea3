package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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
	t      *testing.T
	cmd    *netnstest.Cmd
	log    *logBuffer
	notify *net.UnixConn
	ended  chan struct{} // closed when cmd has been waited for
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
	addr := &net.UnixAddr{Name: filepath.Join(dir, "socket"), Net: "unixgram"}
	d := &daemon{t: t, log: &logBuffer{}, ended: make(chan struct{})}
	if d.notify, err = net.ListenUnixgram(addr.Net, addr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.notify.Close() })

	d.cmd = h.Command(context.Background(), name, args...)
	d.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+addr.Name, "WATCHDOG_USEC=200000")
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatalf("start %s on host %s: %v", name, h.Name(), err)
	}
	go func() {
		_ = d.cmd.Wait() // exit tells
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

// ready waits for READY=1, as systemd does.
func (d *daemon) ready() {
	d.t.Helper()
	d.told("READY=1")
}

// told waits until the daemon has told systemd so.
func (d *daemon) told(what string) {
	d.t.Helper()
	if err := d.notify.SetReadDeadline(time.Now().Add(patience)); err != nil {
		d.t.Fatal(err)
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() { // a daemon that has ended says nothing more than it has said
		select {
		case <-d.ended:
			_ = d.notify.SetReadDeadline(time.Now().Add(time.Second))
		case <-stop:
		}
	}()
	if err := d.hear(what); err != nil {
		d.t.Fatalf("wait for %s: %v", what, err)
	}
}

// isReady reports whether READY=1 has come so far.
func (d *daemon) isReady() bool {
	d.t.Helper()
	if err := d.notify.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		d.t.Fatal(err)
	}
	return d.hear("READY=1") == nil
}

// hear reads messages to systemd until a line is, or begins with, what.
func (d *daemon) hear(what string) error {
	buf := make([]byte, 4096)
	for {
		n, err := d.notify.Read(buf)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.HasPrefix(line, what) {
				return nil
			}
		}
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

// says waits until the log holds text.
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
