package udpsock

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// roomCheck is how often a send that waits for room in the socket's buffer looks
// whether it was woken or closed, in milliseconds.
const roomCheck = 100

// sendOnly is a socket that the runtime's poller does not know of. The poller
// asks for EPOLLOUT of all that it has, and the kernel reports that whenever a
// datagram has left the send buffer (sock_def_write_space, net/core/sock.c): an
// event for each datagram, which wakes a thread that finds nothing to do. Here
// only a full buffer is waited for, by poll(2).
type sendOnly struct {
	file          *os.File
	local         netip.AddrPort
	woken, closed atomic.Bool
}

// listenSendOnly opens a blocking socket, which os.NewFile leaves out of the
// poller. Its sends say MSG_DONTWAIT.
func listenSendOnly(cfg Config, share bool) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open udp socket: %w", err)
	}
	local, err := bind(fd, cfg.Local, share)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bind udp socket to %v: %w", cfg.Local, err), unix.Close(fd))
	}
	s := &sendOnly{file: os.NewFile(uintptr(fd), "udp:"+local.String()), local: local}
	return prepare(&Conn{only: s}, cfg)
}

// bind gives a socket its address, and returns it with the port that the kernel
// chose.
func bind(fd int, local netip.AddrPort, share bool) (netip.AddrPort, error) {
	if share {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return netip.AddrPort{}, fmt.Errorf("SO_REUSEPORT: %w", err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}); err != nil {
		return netip.AddrPort{}, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("read address: %w", err)
	}
	in4, ok := sa.(*unix.SockaddrInet4)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("read address: got a %T, want one of IPv4", sa)
	}
	return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)), nil
}

// ended is why nothing is sent any more; nil while something is.
func (s *sendOnly) ended() error {
	switch {
	case s.closed.Load():
		return net.ErrClosed
	case s.woken.Load():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// write runs do with the descriptor, which stays open meanwhile. do returns
// false only where awaitRoom did.
func (s *sendOnly) write(raw syscall.RawConn, do func(fd uintptr) bool) error {
	if err := s.ended(); err != nil {
		return err
	}
	if err := raw.Write(do); err != nil {
		if ended := s.ended(); ended != nil {
			return ended
		}
		return err
	}
	return nil
}

// awaitRoom waits until the send buffer has room, and reports false where the
// socket was woken or closed instead. What else is wrong, the next send says.
func (s *sendOnly) awaitRoom(fd uintptr) bool {
	for s.ended() == nil {
		set := [...]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		if n, err := unix.Poll(set[:], roomCheck); n > 0 || err != nil && !errors.Is(err, unix.EINTR) {
			return true
		}
	}
	return false
}

// send sends one datagram.
func (s *sendOnly) send(c *Conn, b []byte, to netip.AddrPort) error {
	sa := &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	var result error
	err := s.write(c.raw, func(fd uintptr) bool {
		for {
			result = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, sa)
			switch {
			case errors.Is(result, unix.EINTR):
			case errors.Is(result, unix.EAGAIN):
				if !s.awaitRoom(fd) {
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

// close closes the socket once its sends have ended.
func (s *sendOnly) close() error {
	if s.closed.Swap(true) {
		return nil
	}
	return s.file.Close()
}
