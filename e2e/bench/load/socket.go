package load

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// open returns a blocking socket of k's network, bound to an address. Port 0 lets
// connect(2) choose a port, which allows a port for each pair of addresses.
func open(k kind, at netip.AddrPort) (fd int, err error) {
	typ := unix.SOCK_STREAM
	if k.network() == "udp" {
		typ = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(inet.Of(at.Addr()).AF(), typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	option := [2]int{unix.SOL_SOCKET, unix.SO_REUSEADDR}
	if at.Port() == 0 { // an IPv6 socket has the option, too (ip(7))
		option = [2]int{unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT}
	}
	if err := unix.SetsockoptInt(fd, option[0], option[1], 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set socket option: %w", err)
	}
	if err := unix.Bind(fd, sockaddr(at)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind socket to %v: %w", at, err)
	}
	return fd, nil
}

// dial returns a blocking socket connected to an address. Its system calls end
// after limit.
func dial(k kind, from netip.Addr, to netip.AddrPort, limit time.Duration) (fd int, err error) {
	fd, err = open(k, netip.AddrPortFrom(from, 0))
	if err != nil {
		return -1, err
	}
	tv := unix.NsecToTimeval(int64(limit))
	for _, option := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &tv); err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("set socket option: %w", err)
		}
	}
	if err := retry(func() error { return unix.Connect(fd, sockaddr(to)) }); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
}

// retry repeats a system call that a signal has interrupted. The runtime sends
// itself signals.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// read reads once; io.EOF if the peer has closed the connection.
func read(fd int, buf []byte) (n int, err error) {
	err = retry(func() error {
		n, err = unix.Read(fd, buf)
		return err
	})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// readFull fills buf from a connection.
func readFull(fd int, buf []byte) error {
	for len(buf) > 0 {
		n, err := read(fd, buf)
		if err != nil {
			return err
		}
		buf = buf[n:]
	}
	return nil
}

// write writes buf. A blocking socket takes a small message whole.
func write(fd int, buf []byte) error {
	return retry(func() error {
		_, err := unix.Write(fd, buf)
		return err
	})
}
