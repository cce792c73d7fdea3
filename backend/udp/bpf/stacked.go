package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
)

// errShared: the kernel hands frames that arrive by the uplink to another
// interface of this host. By what it does so, early cannot always see: network
// cards take a VLAN's tag off and report it beside the frame, a MACVLAN's
// hardware addresses are in a table of its own, and bridges and bonds have their
// own rules. A datagram that was for the other interface would be unwrapped all
// the same, and its packet come out there.
//
// An interface that was moved to another network namespace is not seen from
// here. Its datagrams are safe as long as its addresses are its own: early
// unwraps nothing but what is for ours.
var errShared = errors.New("it shares its frames with another interface, and XDP does not see whose they are")

// apart are kinds of interfaces that name another (IFLA_LINK) without taking
// its frames: the other end of a pair, or that by which a tunnel is to send; what
// a tunnel receives it gets from IP, as we do.
var apart = []string{
	"veth", "netkit", "vxcan",
	"vxlan", "geneve", "gre", "gretap", "erspan", "ipip", "sit", "vti", "xfrm",
	"ip6gre", "ip6gretap", "ip6erspan", "ip6tnl", "vti6",
}

// stacked says with what other interface of the host an uplink shares its
// frames, nil if with none. A kind that is not known counts as one that takes
// them: without early nothing but speed is lost. A VRF, the master that takes no
// frames, says by what table packets are routed.
func stacked(uplink *netlink.LinkAttrs, links []netlink.Link) error {
	for _, l := range links {
		a := l.Attrs()
		master := a.Index == uplink.MasterIndex && l.Type() != "vrf"
		above := a.ParentIndex == uplink.Index && a.NetNsID < 0 && !slices.Contains(apart, l.Type())
		if master || above {
			return fmt.Errorf("%w: %s (%s)", errShared, a.Name, l.Type())
		}
	}
	return nil
}
