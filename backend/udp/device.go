package udp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/rtnl"
)

// configureDevice gives the tunnel device its address, the subnet's network
// address as a /32, its MTU, and the route that leads all of Network into it.
// It changes nothing where that is so. All of it goes when the device goes.
func configureDevice(h *netlink.Handle, name string, network, subnet netip.Prefix, mtu int) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("look up tunnel device %s: %w", name, err)
	}
	if err := rtnl.EnsureUp(h, link, netip.PrefixFrom(subnet.Addr(), 32), mtu); err != nil {
		return err
	}
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Table: unix.RT_TABLE_MAIN}
	have, err := rtnl.Routes(h, filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_TABLE)
	if err != nil {
		return err
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(network), Scope: netlink.SCOPE_LINK}
	for _, r := range have {
		switch {
		case r.Dst == nil || r.Protocol == unix.RTPROT_KERNEL:
		case r.Dst.String() == route.Dst.String():
			return nil
		case r.Protocol == unix.RTPROT_BOOT && r.Scope == netlink.SCOPE_LINK: // of another Network
			if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("delete route %v dev %s: %w", r.Dst, name, err)
			}
		}
	}
	// Add, not replace: a route for Network that is there already is somebody's.
	if err := h.RouteAdd(route); err != nil {
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
