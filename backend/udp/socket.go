package udp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// socketBuffer is what is asked for in each direction: at 10 Gb/s, 3 ms of
// packets, about what a goroutine waits for a processor on a busy host.
const socketBuffer = 4 << 20

// localAddr is the address to receive at and send from: publicIP, which peers
// send to and take datagrams from, if this host has it; else, behind NAT, the
// uplink's.
func localAddr(publicIP, uplink netip.Addr) (netip.Addr, error) {
	if publicIP == uplink {
		return uplink, nil
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list this host's addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.Equal(publicIP.AsSlice()) {
			return publicIP, nil
		}
	}
	return uplink, nil
}

// listenUDP opens an IPv4 socket at local whose datagrams have DF set; sending
// one that is larger than the path fails with EMSGSIZE (IP_PMTUDISC_DO, ip(7)).
func listenUDP(ctx context.Context, local netip.AddrPort) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) { err = setOptions(int(fd)) }), err)
	}}
	c, err := lc.ListenPacket(ctx, "udp4", local.String())
	if err != nil {
		return nil, explainListen(fmt.Errorf("listen on udp %v: %w", local, err))
	}
	return c.(*net.UDPConn), nil
}

// explainListen says what to do about the usual failure to listen.
func explainListen(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w; another flannel daemon or VPN has the port: stop it, or choose another with -port (the same on every host)", err)
	}
	return err
}

func setOptions(fd int) error {
	for force, plain := range map[int]int{unix.SO_RCVBUFFORCE: unix.SO_RCVBUF, unix.SO_SNDBUFFORCE: unix.SO_SNDBUF} {
		// The …FORCE variants pass net.core.[rw]mem_max; they take CAP_NET_ADMIN in
		// the first user namespace, which a container has not.
		err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, socketBuffer)
		if errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, socketBuffer)
		}
		if err != nil {
			return fmt.Errorf("set socket buffer to %d bytes: %w", socketBuffer, err)
		}
	}
	for _, o := range []struct {
		name, level, value int
	}{
		{unix.SO_RXQ_OVFL, unix.SOL_SOCKET, 1},
		{unix.IP_MTU_DISCOVER, unix.IPPROTO_IP, unix.IP_PMTUDISC_DO},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("set socket option %d of level %d to %d: %w", o.name, o.level, o.value, err)
		}
	}
	return nil
}
