package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// deviceName is a pattern: the kernel puts in the first number that is free
// (net/core/dev.c, dev_alloc_name).
const deviceName = "flannel%d"

// configureDevice gives the tunnel device its address, the subnet's network
// address as a /32, its MTU, and the route that leads all of Network into it.
// All of it goes when the device goes.
func configureDevice(name string, network, subnet netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look up tunnel device %s: %w", name, err)
	}
	own := netip.PrefixFrom(subnet.Addr(), 32)
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		return fmt.Errorf("add address %v to %s: %w", own, name, err)
	}
	// No IPv6 link-local address, or the kernel solicits routers into a tunnel
	// that carries none. It fails where the kernel has no IPv6: all the better.
	if err := netlink.LinkSetIP6AddrGenMode(link, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		log.V(1).Infof("turn off IPv6 addresses device=%s reason=%q", name, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set MTU of %s to %d: %w", name, mtu, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(network), Scope: netlink.SCOPE_LINK}
	// Add, not replace: a route for Network that is there already is somebody's.
	if err := netlink.RouteAdd(route); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add route %v dev %s: %w; another device has this network (see: ip route show %v): remove that route, or change Network", network, name, err, network)
		}
		return fmt.Errorf("add route %v dev %s: %w", network, name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// explainTUN says what to do about the usual failures to open a TUN.
func explainTUN(err error) error {
	const what = "open tunnel device /dev/net/tun"
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: %w; the daemon needs the capability CAP_NET_ADMIN: run it as root, or give it AmbientCapabilities=CAP_NET_ADMIN (systemd) or --cap-add=NET_ADMIN (docker)", what, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return fmt.Errorf("%s: %w; load the kernel module with \"modprobe tun\", or pass the device in with --device=/dev/net/tun (docker)", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}
