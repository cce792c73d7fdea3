package udpsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// roomCheck is how often a send that waits for room checks for Wake and Close,
// in milliseconds.
const roomCheck = 100

// SendConn is an unconnected UDP socket that only sends; the kernel drops what
// arrives. Its methods are safe for concurrent use.
//
// It is not in the runtime's poller. That asks for EPOLLOUT of every descriptor,
// and the kernel reports it whenever a datagram leaves the send buffer
// (sock_def_write_space, net/core/sock.c): each datagram would wake a thread for
// nothing. A SendConn waits for room with poll(2), and only if the buffer is full.
type SendConn struct {
	socket
	file          *os.File
	woken, closed atomic.Bool
}

// OpenSend opens a socket that only sends.
func OpenSend(cfg Config) (*SendConn, error) {
	// os.NewFile leaves a blocking descriptor out of the poller. Sends pass
	// MSG_DONTWAIT.
	fd, err := unix.Socket(inet.Of(cfg.Local.Addr()).AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open udp socket: %w", err)
	}
	c := &SendConn{file: os.NewFile(uintptr(fd), "udp"), socket: socket{family: inet.Of(cfg.Local.Addr())}}
	if err := cfg.bind(fd); err != nil {
		return nil, errors.Join(fmt.Errorf("bind udp socket to %v: %w", cfg.Local, err), c.Close())
	}
	if c.raw, err = c.file.SyscallConn(); err == nil {
		err = errors.Join(c.setSendOptions(cfg), c.dropReceived())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("set up udp socket %v: %w", cfg.Local, err), c.Close())
	}
	return c, nil
}

// dropReceived attaches a filter that accepts no byte of any packet.
func (c *SendConn) dropReceived() error {
	program := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	return os.NewSyscallError("setsockopt SO_ATTACH_FILTER", c.control(func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	}))
}

// ended returns the error of sends that wait for room after Close and Wake; nil
// before.
func (c *SendConn) ended() error {
	switch {
	case c.closed.Load():
		return net.ErrClosed
	case c.woken.Load():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// write expects that do returns false only if awaitRoom did.
func (c *SendConn) write(do func(fd uintptr) bool) error {
	if c.closed.Load() {
		return net.ErrClosed
	}
	if err := c.raw.Write(do); err != nil {
		if ended := c.ended(); ended != nil {
			return ended
		}
		return err
	}
	return nil
}

// awaitRoom waits until the send buffer has room. It returns false after Wake
// and Close. The next send reports any other error.
func (c *SendConn) awaitRoom(fd uintptr) bool {
	for c.ended() == nil {
		set := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(set[:], roomCheck); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
	return false
}

// Send sends one datagram. It waits while the send buffer is full. For many
// datagrams use a Sender.
func (c *SendConn) Send(b []byte, to netip.AddrPort) error {
	sa := Sockaddr(to)
	var result error
	err := c.write(func(fd uintptr) bool {
		for {
			result = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, sa)
			switch {
			case errors.Is(result, unix.EINTR):
			case errors.Is(result, unix.EAGAIN):
				if !c.awaitRoom(fd) {
					return false
				}
			default:
				return true
			}
		}
	})
	if err != nil {
		return err
	}
	return result
}

// Wake makes sends that wait for room, at present and later, return
// os.ErrDeadlineExceeded. The socket stays open.
func (c *SendConn) Wake() error {
	c.woken.Store(true)
	return nil
}

// Resume undoes Wake: later sends wait for room again.
func (c *SendConn) Resume() error {
	c.woken.Store(false)
	return nil
}

// Close makes pending and later sends return net.ErrClosed. It closes the socket
// after them. A second call does nothing.
func (c *SendConn) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	return c.file.Close()
}
