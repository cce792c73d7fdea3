package rtnl

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	// rtaNextHopID is RTA_NH_ID (linux/rtnetlink.h), which package unix lacks: a next
	// hop by reference.
	rtaNextHopID = 30
	// ipv6Metric is the metric of an IPv6 route that names none (IP6_RT_PRIO_USER,
	// linux/ipv6_route.h).
	ipv6Metric = 1024
)

// kernelRoute is a route as the kernel has it.
type kernelRoute struct {
	Route // Dev is empty if link is neither the device nor the uplink
	link  int
	// protocol is the origin (RTPROT_*), kind the type (RTN_*), scope the reach
	// (RT_SCOPE_*).
	protocol, kind, scope uint8
	// odd is true if Route cannot express the route: it has several next hops,
	// metrics of its own or a preferred source. We never desire such a route.
	odd bool
}

// String names the kind of object, unlike Route's.
func (r kernelRoute) String() string { return "route " + r.Route.String() }

// ourRoute returns the kernel's form of a route of ours. The kernel requires the
// universal scope for a route with a next hop (net/ipv4/fib_semantics.c,
// fib_check_nh).
func ourRoute(r Route, link int) kernelRoute {
	k := kernelRoute{Route: r, link: link, protocol: Protocol, kind: unix.RTN_UNICAST, scope: unix.RT_SCOPE_UNIVERSE}
	switch r.Kind {
	case Link:
		k.scope = unix.RT_SCOPE_LINK
	case Prohibit:
		k.kind = unix.RTN_PROHIBIT
	case Blackhole:
		k.kind = unix.RTN_BLACKHOLE
	}
	return k
}

// appendTo appends a struct rtmsg and the attributes.
func (r kernelRoute) appendTo(b []byte) []byte {
	b = append(b, addrFamily(r.Dst.Addr()), uint8(r.Dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, r.protocol, r.scope, r.kind)
	var flags uint32
	if r.Kind == OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = native.AppendUint32(b, flags)
	b = appendAddr(b, unix.RTA_DST, r.Dst.Addr())
	if r.link != 0 {
		b = appendUint32(b, unix.RTA_OIF, uint32(r.link))
	}
	if r.Via.IsValid() {
		b = appendAddr(b, unix.RTA_GATEWAY, r.Via)
	}
	return appendUint32(b, unix.RTA_PRIORITY, r.Metric)
}

// parseRoute decodes a route of the main table; false for any other.
func (s scope) parseRoute(body []byte) (kernelRoute, bool) {
	if len(body) < unix.SizeofRtMsg {
		return kernelRoute{}, false
	}
	r := kernelRoute{protocol: body[5], scope: body[6], kind: body[7], odd: body[3] != 0}
	flags := native.Uint32(body[8:])
	if flags&unix.RTM_F_CLONED != 0 {
		return kernelRoute{}, false // an older kernel lists cached IPv6 routes, too
	}
	table := uint32(body[4])
	dst := unspecified(body[0]) // the default route has no RTA_DST
	for kind, value := range attributes(body, unix.SizeofRtMsg) {
		switch kind {
		case unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case unix.RTA_OIF:
			r.link = int(uint32Of(value))
		case unix.RTA_GATEWAY:
			r.Via, _ = netip.AddrFromSlice(value)
		case unix.RTA_PRIORITY:
			r.Metric = uint32Of(value)
		case unix.RTA_TABLE:
			table = uint32Of(value)
		case unix.RTA_MULTIPATH, unix.RTA_METRICS, unix.RTA_PREFSRC, unix.RTA_VIA, unix.RTA_ENCAP, rtaNextHopID:
			r.odd = true
		}
	}
	if dst.Is6() && r.Metric == ipv6Metric {
		r.Metric = 0
	}
	r.Dst = netip.PrefixFrom(dst, int(body[1]))
	r.Dev = s.name(r.link)
	switch {
	case r.kind == unix.RTN_PROHIBIT:
		r.Kind, r.Dev = Prohibit, ""
	case r.kind == unix.RTN_BLACKHOLE:
		r.Kind, r.Dev = Blackhole, ""
	case r.kind != unix.RTN_UNICAST:
		r.odd = true
	case !r.Via.IsValid():
		r.Kind = Link
	case flags&unix.RTNH_F_ONLINK != 0:
		r.Kind = OnLink
	}
	return r, table == unix.RT_TABLE_MAIN
}
