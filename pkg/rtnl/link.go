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

	"github.com/coreos/flannel/pkg/netdev"
)

// dumpTries bounds how often an interrupted dump is repeated.
const dumpTries = 10

// RetryDump returns the entries of a dump. It repeats a dump that changes
// interrupted (netlink.ErrDumpInterrupted). The error names the entries by what.
func RetryDump[T any](what string, dump func() ([]T, error)) (all []T, err error) {
	for range dumpTries {
		if all, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", what, err)
	}
	return all, nil
}

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
func Links(h *netlink.Handle) ([]netlink.Link, error) { return RetryDump("interfaces", h.LinkList) }

// Routes returns the IPv4 routes that match filter in the fields of mask
// (netlink.RT_FILTER_…).
func Routes(h *netlink.Handle, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return RetryDump("routes", func() ([]netlink.Route, error) { return h.RouteListFiltered(unix.AF_INET, filter, mask) })
}

// Addrs returns the IPv4 addresses of an interface with their prefix lengths,
// sorted.
func Addrs(h *netlink.Handle, l netlink.Link) ([]netip.Prefix, error) {
	have, err := RetryDump("addresses of "+l.Attrs().Name, func() ([]netlink.Addr, error) { return h.AddrList(l, unix.AF_INET) })
	if err != nil {
		return nil, err
	}
	var addrs []netip.Prefix
	for _, a := range have {
		if p := netdev.Prefix(*a.IPNet); p.IsValid() {
			addrs = append(addrs, p)
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
		if err := h.AddrDel(l, &netlink.Addr{IPNet: netdev.IPNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", a, name, err)
		}
	}
	if !slices.Contains(have, addr) {
		if err := h.AddrReplace(l, &netlink.Addr{IPNet: netdev.IPNet(addr)}); err != nil {
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

// CheckUp returns an error if the device does not exist or is not as EnsureUp makes
// it. It changes nothing.
func CheckUp(h *netlink.Handle, name string, addr netip.Prefix, mtu int) error {
	l, err := h.LinkByName(name)
	switch {
	case errors.As(err, new(netlink.LinkNotFoundError)):
		return fmt.Errorf("device %s does not exist", name)
	case err != nil:
		return fmt.Errorf("look up device %s: %w", name, err)
	case l.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("device %s is down", name)
	case l.Attrs().MTU != mtu:
		return fmt.Errorf("device %s has MTU %d, must have %d", name, l.Attrs().MTU, mtu)
	}
	have, err := Addrs(h, l)
	if err == nil && !slices.Equal(have, []netip.Prefix{addr}) {
		err = fmt.Errorf("device %s has addresses %v, must have %v", name, have, addr)
	}
	return err
}
