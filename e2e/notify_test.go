package e2e

import (
	"errors"
	"net"
	"strings"
	"sync"
)

// notifySocket is systemd's end of the socket, with the messages of a daemon
// (sd_notify(3)). It is read all the time, because a full socket blocks the
// daemon.
type notifySocket struct {
	conn  *net.UnixConn
	ended chan struct{} // closed when conn is

	mu    sync.Mutex
	lines []string // not yet consumed
}

func listenNotices(path string) (*notifySocket, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notifySocket{conn: conn, ended: make(chan struct{})}
	go n.read()
	return n, nil
}

func (n *notifySocket) read() {
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

func (n *notifySocket) close() {
	n.conn.Close()
	<-n.ended
}

// received reports whether a line with this prefix has come since the last call
// that found one. It forgets all lines up to it.
func (n *notifySocket) received(what string) bool {
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
	d.awaitMessage("READY=1")
}

// awaitMessage waits for the line from the daemon.
func (d *daemon) awaitMessage(what string) {
	d.t.Helper()
	since := 0 // looks since the daemon ended
	eventually(d.t, "systemd gets "+what, func() error {
		if d.notices.received(what) {
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
func (d *daemon) isReady() bool { return d.notices.received("READY=1") }

func (d *daemon) hasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return false
	}
}
