package fastpath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

// uplink is an interface that routes to other hosts' subnets lead through.
type uplink struct {
	index int
	name  string
	unfit string // why the programs cannot serve it; "": they can
}

// uplinksOf returns the interfaces of the routes into the network, but for our subnet.
func uplinksOf(links []netlink.Link, routes []netlink.Route, c Config) (uplinks []uplink) {
	lead := make(map[int]bool)
	for _, r := range routes {
		if r.Type != unix.RTN_UNICAST || !leadsOut(netdev.Prefix(*r.Dst), c) {
			continue
		}
		lead[r.LinkIndex] = true
		for _, hop := range r.MultiPath {
			lead[hop.LinkIndex] = true
		}
	}
	for _, l := range links {
		if a := l.Attrs(); lead[a.Index] {
			uplinks = append(uplinks, uplink{a.Index, a.Name, unfit(l, links)})
		}
	}
	return uplinks
}

func (t topology) uplinkNames() (names []string) {
	for _, u := range t.uplinks {
		names = append(names, u.name)
	}
	return names
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

// inspectUplinks looks for what packets of the fast path pass by at the uplinks. They
// meet programs of XDP there, and filters and queues at the egress, as on the long way.
func (l *linkInspector) inspectUplinks(t topology, f *findings) error {
	for _, u := range t.uplinks {
		if u.unfit != "" {
			f.uplinks[u.index] = fmt.Sprintf("uplink %s %s", u.name, u.unfit)
			continue
		}
		reason, err := l.inspectIngress(u.index)
		if err != nil {
			return err
		}
		if reason != "" {
			f.uplinks[u.index] = fmt.Sprintf("%s at uplink %s", reason, u.name) // promise: filter-at-an-uplink-is-met
		}
	}
	return nil
}

// serves returns the indexes of the uplinks that are served. ok is false if there is
// no way to other hosts.
func (f findings) serves(t topology, c Config) (uplinks []int, ok bool) {
	for _, u := range t.uplinks {
		if f.uplinks[u.index] == "" {
			uplinks = append(uplinks, u.index)
		}
	}
	return uplinks, !c.direct() || len(uplinks) > 0
}
