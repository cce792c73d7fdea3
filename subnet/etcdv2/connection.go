package etcdv2

import (
	"context"
	"errors"
	"net"
	"net/http/httptrace"
	"os"
	"sync/atomic"
)

// connection notes who has ended it: we, or the other end or the network.
type connection struct {
	net.Conn
	state atomic.Int32 // changes once
}

// The states of a connection.
const (
	open int32 = iota
	closed
	ended // by the other end or the network
)

// dialer makes a connection, like net.Dialer.DialContext.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// connecting returns dial with a connection around each result.
func connecting(dial dialer) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &connection{Conn: c}, nil
	}
}

// Read implements net.Conn.
func (c *connection) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.note(err)
}

// Write implements net.Conn.
func (c *connection) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.note(err)
}

// note returns err, by which the connection has ended, unless Close came first.
func (c *connection) note(err error) error {
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.state.CompareAndSwap(open, ended)
	}
	return err
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.state.CompareAndSwap(open, closed)
	return c.Conn.Close()
}

// connections notes the connections of requests that follow each other, one at a
// time. Where the server ends one, it may have been restarted with other data. A
// connection that another request has taken meanwhile proves nothing.
type connections struct {
	last  *connection // of the last request: net/http repeats a read on another one
	kept  bool        // the server keeps connections for more than one request
	ended bool        // one before the last request's had ended
}

// trace returns a context for the next request, which is noted.
func (c *connections) trace(ctx context.Context) context.Context {
	c.ended = false
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		c.ended = c.ended || c.last != nil && c.last.state.Load() == ended
		c.kept = c.kept || i.Reused
		c.last, _ = i.Conn.(*connection)
	}})
}

// replaced reports whether the server has ended the connection that the last request
// would have used, although it keeps connections.
func (c *connections) replaced() bool { return c.kept && c.ended }
