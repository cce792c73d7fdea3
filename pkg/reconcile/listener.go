package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"
)

const (
	// bufferSize has room for the announcements of our own first changes for some
	// ten thousand peers, in bytes. The kernel takes the memory as it is used.
	bufferSize = 8 << 20
	// datagramSize exceeds each datagram of the kernel (net/netlink/af_netlink.c,
	// netlink_dump: 32 KiB).
	datagramSize = 64 << 10
)

// Listener receives the kernel's announcements of changes: the multicast groups
// of a netlink family (netlink(7)).
type Listener struct{ sock *socket.Conn }

// Listen subscribes to groups of a family, such as unix.NETLINK_ROUTE and
// unix.RTNLGRP_LINK, in the network namespace of the calling thread. The
// subscription lasts until Close. An overflow loses announcements, not the
// subscription.
func Listen(family int, groups ...int) (*Listener, error) {
	sock, err := socket.Socket(unix.AF_NETLINK, unix.SOCK_RAW, family, "netlink", nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink family %d: %w", family, err)
	}
	l := &Listener{sock}
	if err := errors.Join(sock.Bind(&unix.SockaddrNetlink{Family: unix.AF_NETLINK}), l.join(groups), sock.SetReadBuffer(bufferSize)); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to groups %v of netlink family %d: %w", groups, family, err), sock.Close())
	}
	return l, nil
}

// join adds the groups. The group mask of bind(2) ends at group 32 (netlink(7)).
func (l *Listener) join(groups []int) error {
	for _, g := range groups {
		if err := l.sock.SetsockoptInt(unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			return err
		}
	}
	return nil
}

// Run calls changed after each datagram for which concerns returns true, until ctx
// ends (nil) or the socket fails. A nil concerns is true for all. If the receive
// buffer overflows, any announcement may be lost, and Run calls changed. The
// datagram is valid during the call.
func (l *Listener) Run(ctx context.Context, concerns func(datagram []byte) bool, changed func()) error {
	// Recvmsg ignores the cancellation of a context with a deadline, so a read
	// deadline in the past ends it.
	defer context.AfterFunc(ctx, func() { l.sock.SetReadDeadline(time.Unix(1, 0)) })()
	unlimited := context.WithoutCancel(ctx)
	buf := make([]byte, datagramSize)
	for {
		n, _, _, _, err := l.sock.Recvmsg(unlimited, buf, nil, 0)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed()
		case err != nil:
			return fmt.Errorf("receive netlink announcements: %w", err)
		case concerns == nil || concerns(buf[:n]):
			changed()
		}
	}
}

// SetBuffer sets the size of the receive buffer in bytes; the kernel has a minimum
// (socket(7), SO_RCVBUF).
func (l *Listener) SetBuffer(size int) error { return l.sock.SetReadBuffer(size) }

// Close ends the subscription. Run must have returned.
func (l *Listener) Close() error { return l.sock.Close() }
