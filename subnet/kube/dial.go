package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// dialLimit bounds the attempts of one call. A longer wait would outlast the API
	// server's absence.
	dialLimit = 2 * time.Second
	// dialInterval is the time until the next attempt starts beside those that have no
	// answer.
	dialInterval = 500 * time.Millisecond
	// deadAfter is how long a peer may leave data or probes without an answer. HTTP/2
	// alone would notice after 45 s.
	deadAfter     = 20 * time.Second
	keepAliveIdle = 10 * time.Second
)

// dialer connects to an API server that may be one of several: its name has several
// addresses, or a load balancer chooses one for each connection. A server that does not
// answer costs dialInterval, not the whole limit: the next attempt goes to the next
// address, or again to the only one.
type dialer struct {
	limit   time.Duration
	lookup  func(ctx context.Context, network, host string) ([]netip.Addr, error)
	connect func(ctx context.Context, network, address string) (net.Conn, error)
}

func newDialer(limit time.Duration) *dialer {
	d := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepAliveIdle, Interval: (deadAfter - keepAliveIdle) / 2, Count: 2},
		Control:         setUserTimeout,
	}
	return &dialer{limit: min(dialLimit, limit), lookup: net.DefaultResolver.LookupNetIP, connect: d.DialContext}
}

// setUserTimeout bounds how long the peer may leave data without acknowledgement
// (tcp(7), TCP_USER_TIMEOUT). The kernel's own bound is a quarter of an hour.
func setUserTimeout(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds()))
	}); e != nil {
		return e
	}
	return err
}

// dial connects to address, a host and a port.
func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", address, err)
	}
	addrs, err := d.lookup(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	targets := make([]string, 0, len(addrs))
	for _, a := range addrs {
		targets = append(targets, net.JoinHostPort(a.Unmap().String(), port))
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit)
	defer cancel()
	return d.race(ctx, network, targets)
}

// attempt is the outcome of one attempt.
type attempt struct {
	target int
	conn   net.Conn
	err    error
}

// race returns the connection of the attempt that succeeds first, and ends the others. It
// fails when each target has failed and no attempt runs, or with ctx.
func (d *dialer) race(ctx context.Context, network string, targets []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan attempt)
	started, running := 0, 0
	start := func() {
		target := started % len(targets)
		started, running = started+1, running+1
		go func() {
			conn, err := d.connect(ctx, network, targets[target])
			ended <- attempt{target, conn, err}
		}()
	}
	defer func() {
		cancel()
		for ; running > 0; running-- {
			if a := <-ended; a.err == nil {
				a.conn.Close()
			}
		}
	}()
	next := time.NewTicker(dialInterval)
	defer next.Stop()
	failures := make([]error, len(targets))
	for {
		if running == 0 {
			if started >= len(targets) {
				return nil, errors.Join(failures...)
			}
			start()
		}
		select {
		case a := <-ended:
			running--
			if a.err == nil {
				return a.conn, nil
			}
			failures[a.target] = a.err
		case <-next.C:
			start() // promise: silent-server-is-passed-over
		}
	}
}
