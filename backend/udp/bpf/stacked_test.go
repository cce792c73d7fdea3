package bpf

import (
	"errors"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
)

// A MACVLAN on the uplink detaches decap_xdp while it exists.
func TestStackedInterfaceEndsXDP(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	a.segmented(true)
	run(t, a.Host, "ip", "link", "add", "link", netnstest.Uplink, "name", "above", "type", "macvlan")
	a.attachTo(netnstest.Uplink)
	a.hasDecapXDP(netnstest.Uplink, false)
	if why := a.path.XDPRefusals()[a.link(netnstest.Uplink)]; !errors.Is(why, errShared) {
		t.Errorf("the reason is %v, want %v", why, errShared)
	}
	run(t, b.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", a.inner().String())
	run(t, a.Host, "ip", "link", "del", "above")
	a.attachTo(netnstest.Uplink)
	a.hasDecapXDP(netnstest.Uplink, true)
}

// The links are values, as not every kernel can create each kind.
func TestStacked(t *testing.T) {
	const uplink, bridge = 2, 7
	above := func(index, namespace int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, Name: "above", ParentIndex: uplink, NetNsID: namespace}
	}
	for name, c := range map[string]struct {
		link   netlink.Link
		master int // of the uplink
		shared bool
	}{
		"VLAN":                   {&netlink.Vlan{LinkAttrs: above(3, -1)}, 0, true},
		"MACVLAN":                {&netlink.Macvlan{LinkAttrs: above(3, -1)}, 0, true},
		"MACVTAP":                {&netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: above(3, -1)}}, 0, true},
		"IPVLAN":                 {&netlink.IPVlan{LinkAttrs: above(3, -1)}, 0, true},
		"unknown":                {&netlink.GenericLink{LinkAttrs: above(3, -1), LinkType: "new"}, 0, true},
		"bridge":                 {&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: bridge}}, bridge, true},
		"bond":                   {&netlink.Bond{LinkAttrs: netlink.LinkAttrs{Index: bridge}}, bridge, true},
		"VRF":                    {&netlink.Vrf{LinkAttrs: netlink.LinkAttrs{Index: bridge}}, bridge, false},
		"another's bridge":       {&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Index: bridge}}, 0, false},
		"VXLAN":                  {&netlink.Vxlan{LinkAttrs: above(3, -1)}, 0, false},
		"other end of a pair":    {&netlink.Veth{LinkAttrs: above(3, -1)}, 0, false},
		"another's, same number": {&netlink.Vlan{LinkAttrs: above(3, 1)}, 0, false},
	} {
		own := netlink.LinkAttrs{Index: uplink, MasterIndex: c.master}
		links := []netlink.Link{&netlink.Device{LinkAttrs: own}, c.link}
		if why := stacked(&own, links); errors.Is(why, errShared) != c.shared {
			t.Errorf("%s: %v, want shared: %v", name, why, c.shared)
		}
	}
}
