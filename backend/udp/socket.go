package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer is what is asked for in each direction: at 10 Gb/s, 3 ms of
// packets, about what a goroutine waits for a processor on a busy host.
const socketBuffer = 4 << 20

// listenUDP opens an IPv4 socket at local whose datagrams are sent with the
// given path MTU discovery mode: IP_PMTUDISC_DO sets DF and returns EMSGSIZE
// for what is too large, IP_PMTUDISC_DONT lets it be fragmented (ip(7)).
func listenUDP(ctx context.Context, local netip.AddrPort, discovery int) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = setOptions(int(fd), discovery) }), err)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", local.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen on udp %v: %w; another flannel daemon or VPN has the port: stop it, or choose another with -port (the same on every host)", local, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on udp %v: %w", local, err)
	}
	return c.(*net.UDPConn), nil
}

func setOptions(fd, discovery int) error {
	for _, o := range []struct {
		name, level, value int
	}{
		// The …FORCE variants pass net.core.[rw]mem_max; CAP_NET_ADMIN allows them.
		{unix.SO_RCVBUFFORCE, unix.SOL_SOCKET, socketBuffer},
		{unix.SO_SNDBUFFORCE, unix.SOL_SOCKET, socketBuffer},
		{unix.SO_RXQ_OVFL, unix.SOL_SOCKET, 1},
		{unix.IP_MTU_DISCOVER, unix.IPPROTO_IP, discovery},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set socket option %d of level %d to %d: %w", o.name, o.level, o.value, err)
		}
	}
	return nil
}

// pathMTU is the kernel's present estimate of the path to a peer, in bytes:
// the route's MTU, or less where a router on the way has said so.
func (p *plane) pathMTU(to netip.AddrPort) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p.uplink.MTU
	}
	defer unix.Close(fd)
	// Connecting a datagram socket looks up the route and sends nothing.
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return p.uplink.MTU
	}
	mtu, err := unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
	if err != nil {
		return p.uplink.MTU
	}
	return mtu
}
