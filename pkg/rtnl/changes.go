package rtnl

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

// Changes hears of changes to links, IPv4 addresses, routes and rules, for who
// looks at the kernel's state anew after each.
type Changes struct {
	sock *socket.Conn
	buf  []byte
}

// ListenChanges begins to listen, in the network namespace of the calling
// thread: what changes from here on is told.
func ListenChanges() (*Changes, error) {
	sock, err := openSocket(group(unix.RTNLGRP_LINK) | group(unix.RTNLGRP_IPV4_IFADDR) |
		group(unix.RTNLGRP_IPV4_ROUTE) | group(unix.RTNLGRP_IPV4_RULE))
	if err != nil {
		return nil, err
	}
	return &Changes{sock: sock, buf: make([]byte, receiveSize)}, nil
}

// Run calls changed after each change, or several, until ctx ends (nil) or the
// socket fails. It does not read on before changed returns.
func (c *Changes) Run(ctx context.Context, changed func()) error {
	for {
		_, _, _, _, err := c.sock.Recvmsg(ctx, c.buf, nil, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ENOBUFS): // ENOBUFS: some are lost
			return fmt.Errorf("receive from route netlink: %w", err)
		}
		changed()
	}
}

// Close releases the socket. Run must have returned.
func (c *Changes) Close() error { return c.sock.Close() }
