package e2e

import (
	"errors"
	"net"
	"strings"
	"sync"
)

// notices is systemd's end of the socket, with the messages of a daemon
// (sd_notify(3)). It is read all the time, because a full socket blocks the
// daemon.
type notices struct {
	conn  *net.UnixConn
	ended chan struct{} // closed when conn is

	mu    sync.Mutex
	lines []string // not yet consumed
}

func listenNotices(path string) (*notices, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notices{conn: conn, ended: make(chan struct{})}
	go n.read()
	return n, nil
}

func (n *notices) read() {
	defer close(n.ended)
	buf := make([]byte, 4096)
	for {
		size, err := n.conn.Read(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		for line := range strings.Lines(string(buf[:size])) {
			n.lines = append(n.lines, strings.TrimSuffix(line, "\n"))
		}
		n.mu.Unlock()
	}
}

func (n *notices) close() {
	n.conn.Close()
	<-n.ended
}

// heard reports whether a line with this prefix has come since the last call
// that found one. It forgets all lines up to it.
func (n *notices) heard(what string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i, line := range n.lines {
		if strings.HasPrefix(line, what) {
			n.lines = n.lines[i+1:]
			return true
		}
	}
	return false
}

// ready waits for READY=1, as systemd does.
func (d *daemon) ready() {
	d.t.Helper()
	d.told("READY=1")
}

// told waits for the line from the daemon.
func (d *daemon) told(what string) {
	d.t.Helper()
	since := 0 // looks since the daemon ended
	eventually(d.t, "the daemon tells systemd "+what, func() error {
		if d.notices.heard(what) {
			return nil
		}
		if d.hasEnded() {
			since++
		}
		if since > 50 { // its last messages have been read by now
			d.t.Fatalf("the daemon has ended without telling systemd %s", what)
		}
		return errors.New("it has not")
	})
}

// isReady reports whether READY=1 has come so far.
func (d *daemon) isReady() bool { return d.notices.heard("READY=1") }

func (d *daemon) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}
