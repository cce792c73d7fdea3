package httpd

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

const (
	// maxConns is the number of connections that a server holds at once.
	maxConns = 128
	// maxHeader bounds a request's header, in bytes. net/http adds 4096.
	maxHeader = 8 << 10
	// bodyLimit is how long a request's body may take. No page reads a body, but
	// net/http reads it to its end before the connection's next request.
	bodyLimit = 5 * time.Second
)

// limit bounds what clients can make srv hold.
func limit(srv *http.Server) {
	srv.MaxHeaderBytes = maxHeader
	c := &conns{all: make(map[net.Conn]bool)}
	srv.ConnState = c.changed
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// Without a deadline the server waits less well; there is no other harm.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyLimit))
		}
		next.ServeHTTP(w, r)
	})
}

// conns closes the connection that has waited for a request for the longest
// time where there are more than maxConns. A client that holds many keeps
// nobody else away.
type conns struct {
	mu      sync.Mutex // guards what follows
	all     map[net.Conn]bool
	waiting []net.Conn // for a request, the oldest first
}

// changed is [http.Server]'s ConnState. A connection whose header is being read
// is still StateNew or StateIdle.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	c.waiting = slices.DeleteFunc(c.waiting, func(w net.Conn) bool { return w == conn })
	switch state {
	case http.StateNew, http.StateIdle:
		c.all[conn] = true
		c.waiting = append(c.waiting, conn)
	case http.StateClosed, http.StateHijacked:
		delete(c.all, conn)
	}
	var victim net.Conn
	if len(c.all) > maxConns && len(c.waiting) > 0 { // promise: connections-are-bounded
		victim = c.waiting[0]
		c.waiting = c.waiting[1:]
		delete(c.all, victim)
	}
	c.mu.Unlock()
	if victim != nil {
		_ = victim.Close() // its goroutine finds out, and reports StateClosed
	}
}
