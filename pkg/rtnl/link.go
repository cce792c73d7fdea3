package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// LinkExists reports whether an interface of that name exists.
func LinkExists(h *netlink.Handle, name string) (bool, error) {
	_, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return true, nil
}

// Links returns all interfaces.
func Links(h *netlink.Handle) (links []netlink.Link, err error) {
	err = RetryDump("interfaces", func() (err error) {
		links, err = h.LinkList()
		return err
	})
	return links, err
}

// Routes returns the IPv4 routes that match filter in the fields of mask
// (netlink.RT_FILTER_…).
func Routes(h *netlink.Handle, filter *netlink.Route, mask uint64) (routes []netlink.Route, err error) {
	err = RetryDump("routes", func() (err error) {
		routes, err = h.RouteListFiltered(unix.AF_INET, filter, mask)
		return err
	})
	return routes, err
}

// Addrs returns the IPv4 addresses of an interface with their prefix lengths,
// sorted.
func Addrs(h *netlink.Handle, l netlink.Link) ([]netip.Prefix, error) {
	var have []netlink.Addr
	err := RetryDump("addresses of "+l.Attrs().Name, func() (err error) {
		have, err = h.AddrList(l, unix.AF_INET)
		return err
	})
	if err != nil {
		return nil, err
	}
	var addrs []netip.Prefix
	for _, a := range have {
		ones, _ := a.Mask.Size()
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			addrs = append(addrs, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	slices.SortFunc(addrs, netip.Prefix.Compare)
	return addrs, nil
}

// Within reports whether the interface has an address in network.
func Within(h *netlink.Handle, l netlink.Link, network netip.Prefix) (bool, error) {
	addrs, err := Addrs(h, l)
	return slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return network.Contains(a.Addr()) }), err
}

// EnsureUp makes addr the only IPv4 address of a device of ours and mtu, in bytes,
// its MTU, and sets it up. It changes nothing that is so already.
func EnsureUp(h *netlink.Handle, l netlink.Link, addr netip.Prefix, mtu int) error {
	name := l.Attrs().Name
	if l.Attrs().MTU != mtu {
		if err := h.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", name, mtu, err)
		}
	}
	have, err := Addrs(h, l)
	if err != nil {
		return err
	}
	for _, a := range have { // of an earlier lease
		if a == addr {
			continue
		}
		log.Infof("delete address device=%s addr=%v", name, a)
		if err := h.AddrDel(l, &netlink.Addr{IPNet: ipNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", a, name, err)
		}
	}
	if !slices.Contains(have, addr) {
		if err := h.AddrReplace(l, &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
			return fmt.Errorf("add address %v to %s: %w", addr, name, err)
		}
	}
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	// With an IPv6 link-local address the kernel would solicit routers through a
	// tunnel that carries no IPv6. The call fails if the kernel has no IPv6.
	if err := h.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		log.V(1).Infof("turn off IPv6 addresses device=%s reason=%q", name, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
