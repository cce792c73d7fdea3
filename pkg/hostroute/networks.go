package hostroute

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// Network is a range that this host reaches without the overlay.
type Network struct {
	Prefix netip.Prefix
	// Addr is the host's own address in Prefix. It is invalid if a route leads to
	// Prefix.
	Addr netip.Addr
	// Dev is the interface; empty for a route without one.
	Dev string
	// Bridge is true if Dev is a bridge. Containers may be behind it.
	Bridge bool
	// Replaces is true for a route that excludes another one to the same prefix.
	Replaces bool
}

// String describes the network, as in "172.17.0.0/16 of docker0".
func (n Network) String() string {
	if n.Dev == "" {
		return n.Prefix.String() + " of a route"
	}
	return fmt.Sprintf("%v of %s", n.Prefix, n.Dev)
}

// Networks returns the networks of the interfaces and routes that are not flannel's
// and overlap within, in the network namespace of the calling thread. A router may
// have a million other routes.
func Networks(within netip.Prefix) ([]Network, error) {
	family := inet.Of(within.Addr())
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := rtnl.Links(h)
	if err != nil {
		return nil, err
	}
	var all []Network
	byIndex := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
		if netdev.IsFlannel(l.Attrs().Name) {
			continue
		}
		addrs, err := rtnl.Addrs(h, l, family)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			if a.Masked().Overlaps(within) {
				all = append(all, Network{Prefix: a.Masked(), Addr: a.Addr(), Dev: l.Attrs().Name, Bridge: l.Type() == "bridge"})
			}
		}
	}
	// A table of 0 in the filter is every table.
	routes, err := rtnl.RetryDump("routes", func() (found []Network, err error) {
		err = h.RouteListFilteredIter(family.AF(), &netlink.Route{}, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
			if n, ok := routed(r, byIndex); ok && n.Prefix.Overlaps(within) {
				found = append(found, n)
			}
			return true
		})
		return found, err
	})
	return append(all, routes...), err
}

// routed returns the network of a route; false for a default route, one that
// follows from an address, and one of flannel's.
func routed(r netlink.Route, links map[int]netlink.Link) (Network, bool) {
	if r.Dst == nil || r.Protocol == unix.RTPROT_KERNEL || r.Protocol == rtnl.Protocol || r.Table == unix.RT_TABLE_LOCAL {
		return Network{}, false
	}
	n := Network{Prefix: netdev.Prefix(*r.Dst).Masked(), Replaces: r.Table == unix.RT_TABLE_MAIN && r.Priority == 0}
	if l := links[r.LinkIndex]; l != nil {
		n.Dev, n.Bridge = l.Attrs().Name, l.Type() == "bridge"
	}
	return n, n.Prefix.IsValid() && n.Prefix.Bits() > 0 && !netdev.IsFlannel(n.Dev)
}

// Conflict returns an error if one route to all of network, as tunnels have it,
// takes packets from one of have or cannot be added beside it.
func Conflict(have []Network, network netip.Prefix) error {
	for _, n := range have {
		around := n.Prefix.Bits() <= network.Bits() && n.Prefix.Contains(network.Addr())
		switch {
		case around && n.Addr.IsValid() && network.Contains(n.Addr):
			return fmt.Errorf("check Network %v: it contains %v, the address of %s with the network %v; choose another Network, or give %s another range (Docker: \"bip\" in daemon.json)",
				network, n.Addr, n.Dev, n.Prefix, n.Dev)
		case n.Replaces && n.Prefix == network:
			return fmt.Errorf("check Network %v: this host has another program's route %v (see: ip route show %v); remove that route, or choose another Network", network, n, network)
		}
	}
	return nil
}

// Unusable returns the networks within network that a new subnet of this host must
// not overlap, and those that it may overlap if no other subnet is free.
//
//   - A bridge with a network of a subnet's size may be that of earlier containers.
//   - Of a network around the overlay's, such as a LAN 10.0.0.0/8, only the host's
//     own address counts.
func Unusable(have []Network, network netip.Prefix, subnetLen int, uplink string) (never, last []Network) {
	for _, n := range have {
		if !n.Prefix.Overlaps(network) {
			continue
		}
		if n.Prefix.Bits() <= network.Bits() {
			if !n.Addr.IsValid() || !network.Contains(n.Addr) {
				continue
			}
			n.Prefix = netip.PrefixFrom(n.Addr, n.Addr.BitLen())
		}
		if n.Bridge && n.Prefix.Bits() >= subnetLen && n.Dev != uplink {
			last = append(last, n)
		} else {
			never = append(never, n)
		}
	}
	return never, last
}
