package fastpath

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// listener hears the kernel's announcements on one netlink socket.
type listener struct {
	conn *netlink.Conn
	name string
	// concerns reports whether an announcement calls for another look.
	concerns func(netlink.Message) bool
}

// listen runs in the network namespace of the device.
func listen(name string, family int, concerns func(netlink.Message) bool, groups ...uint32) (*listener, error) {
	conn, err := netlink.Dial(family, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to %s: %w", name, err)
	}
	for _, group := range groups {
		if err := conn.JoinGroup(group); err != nil {
			return nil, errors.Join(fmt.Errorf("listen to %s: %w", name, err), conn.Close())
		}
	}
	return &listener{conn, name, concerns}, nil
}

// run calls changed after each announcement that concerns us, until ctx ends
// (nil) or the socket fails.
func (l *listener) run(ctx context.Context, changed func()) error {
	stop := context.AfterFunc(ctx, func() { l.conn.Close() })
	defer stop()
	for {
		messages, err := l.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some are lost
			changed()
			continue
		case err != nil:
			return fmt.Errorf("listen to %s: %w", l.name, err)
		}
		for _, m := range messages {
			if l.concerns(m) {
				changed()
				break
			}
		}
	}
}

// close is for after run, which closes the socket itself, or without it.
func (l *listener) close() error {
	if err := l.conn.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close listener to %s: %w", l.name, err)
	}
	return nil
}

// all is for sockets whose announcements all count.
func all(netlink.Message) bool { return true }

// ofNftables excludes announcements of set elements and of counters.
func ofNftables(m netlink.Message) bool {
	switch m.Header.Type & 0xff {
	case unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN,
		unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		return true
	}
	return false
}
