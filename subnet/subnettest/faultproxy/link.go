package faultproxy

import (
	"context"
	"net"
	"sync"
	"time"
)

// chunk is how many bytes are forwarded at once, the granularity of a delay.
const chunk = 32 << 10

// direction is a direction of bytes.
type direction int

const (
	up   direction = iota // to the server
	down                  // to the client
)

// held reports whether the fault blocks that direction.
func (f Fault) held(d direction) bool {
	if d == up {
		return f.HoldUp
	}
	return f.HoldDown
}

// link is a connection through the proxy.
type link struct {
	client, server net.Conn
	// ended is closed when both sides are.
	ended chan struct{}

	mu       sync.Mutex // guards what follows
	orphaned bool       // the server's side is gone, unknown to the client
	closed   bool
}

// serve forwards one connection until it ends. It forwards each end of stream
// separately.
func (p *Proxy) serve(ctx context.Context, client net.Conn) {
	server, err := p.config.Dial(ctx)
	if err != nil {
		abort(client) // like a server that does not exist
		return
	}
	l := &link{client: client, server: server, ended: make(chan struct{})}
	p.mu.Lock()
	p.links[l] = true
	p.mu.Unlock()
	stop := context.AfterFunc(ctx, l.close)
	defer stop()

	var pumps sync.WaitGroup
	pumps.Go(func() { p.pump(l, up, server, client) })
	pumps.Go(func() { p.pump(l, down, client, server) })
	pumps.Wait()
	l.close()
	p.mu.Lock()
	delete(p.links, l)
	p.mu.Unlock()
}

// pump forwards one direction until its end.
func (p *Proxy) pump(l *link, way direction, to, from net.Conn) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !p.pass(l, way) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil && !l.isOrphan() {
				l.close()
				return
			}
		}
		if err != nil {
			switch {
			case l.isOrphan() && way == up:
				l.close() // the client has given up
			case l.isOrphan():
				<-l.ended // hidden from the client
			case p.pass(l, way): // an end of stream is held back as well
				finish(to)
			}
			return
		}
	}
}

// pass waits until bytes may go through; false if the link ends first.
func (p *Proxy) pass(l *link, way direction) bool {
	for {
		fault, changed := p.now()
		switch {
		case fault.held(way):
			select {
			case <-changed:
			case <-l.ended:
				return false
			}
		case fault.Delay > 0:
			timer := time.NewTimer(fault.Delay)
			defer timer.Stop()
			select {
			case <-timer.C:
				return true
			case <-l.ended:
				return false
			}
		default:
			return true
		}
	}
}

func (l *link) isOrphan() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.orphaned
}

func (l *link) orphan() {
	l.mu.Lock()
	l.orphaned = true
	l.mu.Unlock()
	l.server.Close()
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	close(l.ended)
	l.client.Close()
	l.server.Close()
}

func (l *link) reset() {
	abort(l.client)
	abort(l.server)
	l.close()
}

// abort closes with a RST in place of a FIN (socket(7), SO_LINGER of zero).
func abort(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // of a connection that is closed already
	}
	c.Close()
}

// finish forwards an end of stream.
func finish(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite() // of a connection that is closed already
	}
}
