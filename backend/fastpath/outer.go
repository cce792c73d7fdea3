package fastpath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

// outer is an interface to other hosts: the tunnel device, or an uplink, which routes to
// their subnets lead through.
type outer struct {
	index  int
	name   string
	tunnel bool
	unfit  string // why the programs cannot serve it; "": they can
}

// String returns the name for reasons.
func (o outer) String() string {
	if o.tunnel {
		return o.name
	}
	return "uplink " + o.name
}

// outerOf returns the tunnel device, or without one the interfaces of the routes into the
// network, but for our subnet.
func outerOf(links []netlink.Link, routes []netlink.Route, c Config) (all []outer) {
	lead := map[int]bool{c.Device: true} // no interface has the index 0
	for _, r := range routes {
		if !c.direct() || r.Type != unix.RTN_UNICAST || !leadsOut(netdev.Prefix(*r.Dst), c) {
			continue
		}
		lead[r.LinkIndex] = true
		for _, hop := range r.MultiPath {
			lead[hop.LinkIndex] = true
		}
	}
	for _, l := range links {
		if a := l.Attrs(); lead[a.Index] {
			o := outer{index: a.Index, name: a.Name, tunnel: !c.direct()}
			if !o.tunnel {
				o.unfit = unfit(l, links)
			}
			all = append(all, o)
		}
	}
	return all
}

func (t topology) outerNames() (names []string) {
	for _, o := range t.outer {
		names = append(names, o.name)
	}
	return names
}

func (t topology) isOuter(index int) bool {
	return slices.ContainsFunc(t.outer, func(o outer) bool { return o.index == index })
}

// leadsOut reports whether a route's destination is of other hosts.
func leadsOut(dst netip.Prefix, c Config) bool {
	return c.Network.Contains(dst.Addr()) && dst.Bits() >= c.Network.Bits() && !c.Subnet.Contains(dst.Addr())
}

// uplinkKinds are the kinds of interfaces at whose ingress the kernel runs the programs
// for each packet that they receive (__netif_receive_skb_core in net/core/dev.c).
var uplinkKinds = []string{"device", "veth", "vlan", "bond", "team", "bridge", "macvlan"}

// unfit says why an interface cannot be served; "" if it can.
func unfit(l netlink.Link, links []netlink.Link) string {
	a := l.Attrs()
	switch {
	case a.EncapType != "ether":
		return "has no Ethernet header"
	case !slices.Contains(uplinkKinds, l.Type()):
		return fmt.Sprintf("is of kind %s", l.Type())
	}
	for _, master := range links {
		if m := master.Attrs(); m.Index == a.MasterIndex && a.MasterIndex != 0 {
			return fmt.Sprintf("belongs to %s %s", master.Type(), m.Name)
		}
	}
	return ""
}

// inspectOuter looks for what packets of the fast path pass by at the outer interfaces.
// At an uplink, they meet programs of XDP, and filters and queues at the egress, as on the
// long way.
func (l *linkInspector) inspectOuter(t topology, f *findings) error {
	for _, o := range t.outer {
		if o.unfit != "" {
			f.outer[o.index] = fmt.Sprintf("%v %s", o, o.unfit)
			continue
		}
		reason, err := l.inspectIngress(o.index)
		if err != nil {
			return err
		}
		if reason == "" && o.tunnel && t.xdp[o.index] {
			reason = "XDP program"
		}
		if reason != "" {
			f.outer[o.index] = fmt.Sprintf("%s at %v", reason, o) // promise: filter-at-an-uplink-is-met
		}
	}
	return nil
}

// serves returns the indexes of the outer interfaces that are served.
func (f findings) serves(t topology) (indexes []int) {
	for _, o := range t.outer {
		if f.outer[o.index] == "" {
			indexes = append(indexes, o.index)
		}
	}
	return indexes
}
