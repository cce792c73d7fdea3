package rig

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

// readyTimeout bounds the start of a daemon, stopTimeout the end of a program.
const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// RefusedError is the error of a subject that this machine does not support: the
// daemon refuses the backend or data path, or a program is missing.
type RefusedError struct{ Reason string }

// Error implements error.
func (e *RefusedError) Error() string { return e.Reason }

// node is a daemon on a host. It may be started and stopped several times.
type node struct {
	host             *netnstest.Host
	program          string
	args             []string
	envFile, logFile string

	process *netnstest.Process // nil: it does not run
}

// start starts the daemon and waits until it is ready. It returns a *RefusedError
// if the daemon ends before.
func (n *node) start(ctx context.Context) error {
	dir := filepath.Dir(n.logFile)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder of daemon: %w", err)
	}
	log, err := os.Create(n.logFile)
	if err != nil {
		return fmt.Errorf("make log of daemon: %w", err)
	}
	defer log.Close()
	notify, err := listenNotify()
	if err != nil {
		return err
	}
	defer os.Remove(notify.LocalAddr().String())
	defer notify.Close()

	// stop ends the daemon, as a service manager does, not ctx.
	cmd := n.host.Command(context.WithoutCancel(ctx), n.program, n.args...)
	cmd.Stderr = log
	cmd.Env = append(daemonEnv(), "NOTIFY_SOCKET="+notify.LocalAddr().String())
	if n.process, err = cmd.Launch(); err != nil {
		return fmt.Errorf("start daemon on %s: %w", n.host.Name(), err)
	}
	return n.awaitReady(ctx, notify)
}

// daemonEnv returns our environment without flannel's variables, which would change
// the measured program.
func daemonEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "FLANNELD_") })
}

// listenNotify opens a socket for READY=1, as systemd does (sd_notify(3)).
func listenNotify() (*net.UnixConn, error) {
	// Abstract names belong to a network namespace, so the socket needs a path, of
	// at most 107 bytes.
	f, err := os.CreateTemp("", "bench-notify-")
	if err != nil {
		return nil, fmt.Errorf("name notify socket: %w", err)
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return nil, fmt.Errorf("name notify socket: %w", err)
	}
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: f.Name(), Net: "unixgram"})
}

func (n *node) awaitReady(ctx context.Context, notify *net.UnixConn) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- readReady(notify) }()
	var err error
	select {
	case err = <-ready:
		return err
	case <-n.process.Ended():
		err = &RefusedError{n.lastLogLine()}
	case <-ctx.Done():
		err = fmt.Errorf("daemon on %s is not ready: %w; its log ends with: %s", n.host.Name(), ctx.Err(), n.lastLogLine())
	}
	notify.Close()
	<-ready
	return err
}

func readReady(notify io.Reader) error {
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return fmt.Errorf("wait for READY=1: %w", err)
		}
		for line := range strings.Lines(string(buf[:n])) {
			if strings.TrimSpace(line) == "READY=1" {
				return nil
			}
		}
	}
}

// lastLogLine returns the last line of the log, without glog's header.
func (n *node) lastLogLine() string {
	text, err := os.ReadFile(n.logFile)
	if err != nil {
		return err.Error()
	}
	text = []byte(strings.TrimSpace(string(text)))
	last := string(text[strings.LastIndexByte(string(text), '\n')+1:])
	if _, message, ok := strings.Cut(last, "] "); ok {
		return message
	}
	return last
}

// stop ends the daemon, if it runs.
func (n *node) stop() error {
	p := n.process
	n.process = nil
	if err := p.Stop(stopTimeout); err != nil {
		return fmt.Errorf("stop daemon on %s: %w", n.host.Name(), err)
	}
	return nil
}
