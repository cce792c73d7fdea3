package udp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// socketBuffer is the size of a socket's buffers in bytes, for each direction: at
// 10 Gb/s 3 ms of packets, about a goroutine's wait for a processor on a busy host.
const socketBuffer = 4 << 20

// localAddr returns the address to receive at and send from. It is publicIP, the
// address that peers know, if this host has it. Behind NAT it is the uplink's.
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

// explainListen adds the remedy to the usual error of listen.
func explainListen(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w; another flannel daemon or VPN has the port: stop it, or choose another with -port (the same on every host)", err)
	}
	return err
}
