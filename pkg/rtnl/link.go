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

	"github.com/coreos/flannel/pkg/inet"
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

// FindLink returns the interface of that name; nil if there is none.
func FindLink(h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := h.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return l, nil
}

// AwaitAnnounced returns when the kernel has made the changes that it has announced. It
// announces a deletion before it removes the route (fib_table_delete in
// net/ipv4/fib_trie.c), under the lock of route netlink. A look-up of a route takes no
// lock, and since Linux 6.9 a dump does not either (inet_dump_fib in
// net/ipv4/fib_frontend.c). A look-up of a link takes the lock, and so waits.
func AwaitAnnounced(h *netlink.Handle) error {
	_, err := FindLink(h, "lo")
	return err
}

// LinkExists reports whether an interface of that name exists.
func LinkExists(h *netlink.Handle, name string) (bool, error) {
	l, err := FindLink(h, name)
	return l != nil, err
}

// DeleteLink deletes the interface of that name. It returns nil if there is none.
func DeleteLink(h *netlink.Handle, name string) error {
	l, err := FindLink(h, name)
	if l == nil {
		return err
	}
	if err := h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", name, err)
	}
	return nil
}

// SetUp sets an interface of ours up, unless it is. The interface gets no IPv6
// link-local address, with which the kernel would solicit routers there.
func SetUp(h *netlink.Handle, l netlink.Link) error {
	name := l.Attrs().Name
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	// The call fails if the kernel has no IPv6.
	if err := h.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE); err != nil {
		log.V(1).Infof("turn off IPv6 addresses device=%s reason=%q", name, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Links returns all interfaces.
func Links(h *netlink.Handle) ([]netlink.Link, error) { return RetryDump("interfaces", h.LinkList) }

// Routes returns the routes of a family that match filter in the fields of mask
// (netlink.RT_FILTER_…).
func Routes(h *netlink.Handle, family inet.Family, filter *netlink.Route, mask uint64) ([]netlink.Route, error) {
	return RetryDump("routes", func() ([]netlink.Route, error) { return h.RouteListFiltered(family.AF(), filter, mask) })
}

// Addrs returns the addresses of an interface in a family with their prefix lengths,
// sorted. It leaves out IPv6's link-local addresses, which the kernel manages.
func Addrs(h *netlink.Handle, l netlink.Link, family inet.Family) ([]netip.Prefix, error) {
	have, err := RetryDump("addresses of "+l.Attrs().Name, func() ([]netlink.Addr, error) { return h.AddrList(l, family.AF()) })
	if err != nil {
		return nil, err
	}
	var addrs []netip.Prefix
	for _, a := range have {
		if p := netdev.Prefix(*a.IPNet); p.IsValid() && !(p.Addr().Is6() && p.Addr().IsLinkLocalUnicast()) {
			addrs = append(addrs, p)
		}
	}
	slices.SortFunc(addrs, netip.Prefix.Compare)
	return addrs, nil
}

// Within reports whether the interface has an address in network.
func Within(h *netlink.Handle, l netlink.Link, network netip.Prefix) (bool, error) {
	addrs, err := Addrs(h, l, inet.Of(network.Addr()))
	return slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return network.Contains(a.Addr()) }), err
}
