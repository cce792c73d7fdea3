package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// errShared: the kernel passes some of the uplink's frames to another interface of
// this host. decap_xdp cannot always see which: network cards report a VLAN tag
// beside the frame, a MACVLAN has its own table of hardware addresses, bridges and
// bonds have their own rules. decap_xdp would decapsulate the other interface's
// datagram, and that interface would get the inner packet.
//
// An interface in another network namespace is not visible here. Its datagrams are
// safe if its IP addresses are its own: decap_xdp handles only datagrams to ours.
var errShared = errors.New("it shares its frames with another interface, and XDP does not see whose they are")

// standaloneKinds are kinds of interfaces that name another one (IFLA_LINK) but do
// not take its frames. It is the other end of a pair, or a tunnel's output; a tunnel
// receives from IP.
var standaloneKinds = []string{
	"veth", "netkit", "vxcan",
	"vxlan", "geneve", "gre", "gretap", "erspan", "ipip", "sit", "vti", "xfrm",
	"ip6gre", "ip6gretap", "ip6erspan", "ip6tnl", "vti6",
}

// stacked returns errShared with the interface that shares the uplink's frames, or
// nil. An unknown kind counts as sharing: without decap_xdp only speed is lost. A
// VRF is a master that takes no frames; it selects a routing table.
func stacked(uplink *netlink.LinkAttrs, links []netlink.Link) error {
	for _, l := range links {
		a := l.Attrs()
		master := a.Index == uplink.MasterIndex && l.Type() != "vrf"
		above := a.ParentIndex == uplink.Index && a.NetNsID < 0 && !slices.Contains(standaloneKinds, l.Type())
		if master || above {
			return fmt.Errorf("%w: %s (%s)", errShared, a.Name, l.Type())
		}
	}
	return nil
}
