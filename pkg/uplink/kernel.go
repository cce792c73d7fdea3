package uplink

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/rtnl"
)

// readHost reads the interfaces and addresses of the calling thread's network
// namespace.
func readHost() (host, error) {
	nlLinks, err := rtnl.Links(&netlink.Handle{})
	if err != nil {
		return host{}, err
	}
	nlAddrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET) })
	if err != nil {
		return host{}, err
	}
	var h host
	for _, nl := range nlLinks {
		a := nl.Attrs()
		h.links = append(h.links, link{
			index: a.Index,
			names: append([]string{a.Name}, a.AltNames...),
			mtu:   a.MTU,
			up:    a.Flags&net.FlagUp != 0,
			addrs: addrsOf(a.Index, nlAddrs),
		})
	}
	return h, nil
}

func addrsOf(index int, all []netlink.Addr) []addr {
	var addrs []addr
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if a.LinkIndex != index || !ok {
			continue
		}
		addrs = append(addrs, addr{
			ip:     ip.Unmap(),
			global: a.Scope == unix.RT_SCOPE_UNIVERSE,
		})
	}
	return addrs
}

// hopsOf returns the next hops of a route: several for ECMP, none for a blackhole
// or unreachable route.
func hopsOf(r netlink.Route) []hop {
	if r.Type != unix.RTN_UNICAST {
		return nil
	}
	src, _ := netip.AddrFromSlice(r.Src)
	src = src.Unmap()
	if len(r.MultiPath) == 0 {
		return []hop{{r.LinkIndex, src}}
	}
	var hops []hop
	for _, nh := range r.MultiPath {
		hops = append(hops, hop{nh.LinkIndex, src})
	}
	return hops
}

// kernel reads the routes of the calling thread's network namespace.
type kernel struct{}

func (kernel) defaults() ([]hop, error) {
	// A nil Dst in the filter is 0.0.0.0/0. The kernel returns all routes, and
	// the library filters them.
	routes, err := rtnl.Routes(&netlink.Handle{}, &netlink.Route{}, netlink.RT_FILTER_DST)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
	var hops []hop
	for _, r := range routes {
		hops = append(hops, hopsOf(r)...)
	}
	return hops, nil
}

func (kernel) to(ip netip.Addr) (hop, error) {
	routes, err := netlink.RouteGet(ip.AsSlice())
	if err != nil {
		return hop{}, err
	}
	for _, r := range routes {
		if r.Type == unix.RTN_LOCAL {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return hop{}, err
			}
			return hop{index: lo.Attrs().Index}, nil
		}
		if hops := hopsOf(r); len(hops) > 0 {
			return hops[0], nil
		}
	}
	return hop{}, unix.ENETUNREACH
}
