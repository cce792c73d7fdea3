package uplink

import (
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/rtnl"
)

// readHost reads the interfaces and addresses of the calling thread's network
// namespace.
func readHost(f inet.Family) (host, error) {
	nlLinks, err := rtnl.Links(&netlink.Handle{})
	if err != nil {
		return host{}, err
	}
	nlAddrs, err := rtnl.RetryDump("addresses", func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return host{}, err
	}
	h := host{family: f}
	for _, nl := range nlLinks {
		a := nl.Attrs()
		addrs, other := addrsOf(a.Index, f, nlAddrs)
		h.links = append(h.links, link{
			index: a.Index,
			names: append([]string{a.Name}, a.AltNames...),
			mtu:   a.MTU,
			up:    a.Flags&net.FlagUp != 0,
			vrf:   vrfOf(nl, nlLinks),
			addrs: addrs, other: other,
		})
	}
	h.lendLoopback()
	return h, nil
}

// vrfOf returns the name of the VRF that a link belongs to, or of its master's.
func vrfOf(l netlink.Link, all []netlink.Link) string {
	for range all { // a bridge with ports may itself belong to one; no circle ends
		i := slices.IndexFunc(all, func(m netlink.Link) bool { return m.Attrs().Index == l.Attrs().MasterIndex })
		if i < 0 {
			return ""
		}
		if l = all[i]; l.Type() == "vrf" {
			return l.Attrs().Name
		}
	}
	return ""
}

// addrsOf returns the addresses of an interface, those of family f apart.
func addrsOf(index int, f inet.Family, all []netlink.Addr) (addrs []addr, other []netip.Addr) {
	ranks := make(map[netip.Addr]int)
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if a.LinkIndex != index || !ok {
			continue
		}
		if ip = ip.Unmap(); inet.Of(ip) != f {
			other = append(other, ip)
			continue
		}
		addrs = append(addrs, addr{ip: ip, global: a.Scope == unix.RT_SCOPE_UNIVERSE, unfit: unfitness(f, a.Flags)})
		ranks[ip] = rankOf(a.Flags)
	}
	if f == inet.IPv6 {
		slices.SortStableFunc(addrs, func(a, b addr) int { return ranks[a.ip] - ranks[b.ip] })
	}
	return addrs, other
}

// unusable are the flags of a next hop that takes no packets (rtnetlink(7)).
const unusable = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN

// hopsOf returns the next hops of a route: several for ECMP, none for a blackhole
// or unreachable route.
func hopsOf(r netlink.Route) []hop {
	if r.Type != unix.RTN_UNICAST {
		return nil
	}
	src, _ := netip.AddrFromSlice(r.Src)
	src = src.Unmap()
	if len(r.MultiPath) == 0 {
		return []hop{{r.LinkIndex, src, r.Flags&unusable != 0}}
	}
	var hops []hop
	for _, nh := range r.MultiPath {
		hops = append(hops, hop{nh.LinkIndex, src, nh.Flags&unusable != 0})
	}
	return hops
}

// kernel reads the routes of the calling thread's network namespace.
type kernel struct{ family inet.Family }

func (k kernel) defaults() ([]hop, error) {
	// A nil Dst in the filter is 0.0.0.0/0 or ::/0. The kernel returns all routes,
	// and the library filters them.
	routes, err := rtnl.RetryDump("routes", func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(k.family.AF(), &netlink.Route{}, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return a.Priority - b.Priority })
	// A dead next hop, or one without a carrier, is the last choice: a cable that
	// is out leaves the route there (net.ipv4.conf.all.ignore_routes_with_linkdown).
	var live, dead []hop
	for _, r := range routes {
		hops, err := k.hopsOfDefault(r)
		if err != nil {
			return nil, err
		}
		for _, next := range hops {
			if next.dead {
				dead = append(dead, next)
			} else {
				live = append(live, next)
			}
		}
	}
	return append(live, dead...), nil
}

// hopsOfDefault is hopsOf for a route that may lead to a next-hop object.
func (k kernel) hopsOfDefault(r netlink.Route) ([]hop, error) {
	hops := hopsOf(r)
	if r.LinkIndex != 0 || len(r.MultiPath) > 0 || len(hops) == 0 {
		return hops, nil
	}
	links, err := nexthopLinks(k.family, r.Priority)
	if err != nil {
		return nil, err
	}
	src := hops[0].src
	hops = nil
	for _, index := range links {
		hops = append(hops, hop{index: index, src: src})
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
