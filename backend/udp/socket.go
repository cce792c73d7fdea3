package udp

import (
	"errors"
	"fmt"
	"net/netip"

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

// explainListen says what to do about the usual failure to listen.
func explainListen(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w; another flannel daemon or VPN has the port: stop it, or choose another with -port (the same on every host)", err)
	}
	return err
}
