package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"
)

// conn sends and receives ICMP messages of one identifier, or of all.
type conn struct {
	net.PacketConn
	raw bool
}

func (c conn) addr(to netip.Addr) net.Addr {
	if c.raw {
		return &net.IPAddr{IP: to.AsSlice()}
	}
	return &net.UDPAddr{IP: to.AsSlice()}
}

// open makes a ping socket, which needs no privilege where
// net.ipv4.ping_group_range has our group (systemd sets it so), else a raw one,
// which needs CAP_NET_RAW. It is bound to source if this host has that address:
// host-gw makes no device, and the kernel chooses there.
func open(source netip.Addr) (conn, error) {
	c, err := openAs(unix.SOCK_DGRAM, source)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPROTONOSUPPORT) {
		c, err = openAs(unix.SOCK_RAW, source)
		if errors.Is(err, unix.EPERM) {
			return conn{}, fmt.Errorf("open a socket for pings, which needs CAP_NET_RAW or `sysctl net.ipv4.ping_group_range=\"0 2147483647\"`: %w", err)
		}
	}
	if err != nil {
		return conn{}, fmt.Errorf("open a socket for pings: %w", err)
	}
	return c, nil
}

func openAs(kind int, source netip.Addr) (conn, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return conn{}, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "ping")
	defer f.Close() // FilePacketConn has a duplicate
	// PROBE: "don't fragment" is set, and what the kernel has learnt of the
	// path's MTU does not keep a packet back (ip(7)).
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE); err != nil {
		return conn{}, os.NewSyscallError("setsockopt IP_MTU_DISCOVER", err)
	}
	if kind == unix.SOCK_RAW {
		// include/uapi/linux/icmp.h: ICMP_FILTER is option 1 of SOL_RAW, a mask of
		// the types that are not wanted. All but the echo reply, type 0.
		if err := unix.SetsockoptInt(fd, unix.SOL_RAW, 1, ^1); err != nil {
			return conn{}, os.NewSyscallError("setsockopt ICMP_FILTER", err)
		}
	}
	err = unix.Bind(fd, &unix.SockaddrInet4{Addr: source.As4()})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return conn{}, os.NewSyscallError("bind", err)
	}
	c, err := net.FilePacketConn(f)
	return conn{c, kind == unix.SOCK_RAW}, err
}

// receive gives take each message and who sent it, until ctx ends, which gives
// nil, or the socket fails. The message is take's until it returns.
func receive(ctx context.Context, c conn, take func(message []byte, from netip.Addr)) error {
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receive echo replies: %w", err)
		case err != nil: // an ICMP error about an earlier request
			log.V(2).Infof("receive echo replies: %v", err)
		default:
			take(buf[:n], source(from))
		}
	}
}

func source(from net.Addr) netip.Addr {
	var ip net.IP
	switch a := from.(type) {
	case *net.UDPAddr:
		ip = a.IP
	case *net.IPAddr:
		ip = a.IP
	}
	addr, _ := netip.AddrFromSlice(ip.To4())
	return addr
}
