package bpf

import (
	"errors"
	"maps"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// Why early would do harm, or no good.
var (
	// XDP programs know nothing of super-packets. So veth takes TSO from the
	// other end of its link while there is a program (veth_xdp_set,
	// drivers/net/veth.c), and virtio has the hypervisor send no more of them
	// (virtnet_xdp_set, drivers/net/virtio_net.c). On a link that has them, they
	// are worth more than all that GRO can gather.
	errSuperPackets = errors.New("super-packets cross this link whole, and with XDP would not")
	errNoGRO        = errors.New("GRO is off")
)

// superPackets are the drivers of links that super-packets cross whole.
var superPackets = []string{"veth", "virtio_net"}

// Late says of which uplinks packets are unwrapped after GRO, by the program
// in alone, and why. Of all others they are unwrapped before, by the program
// early in the driver (native XDP), and GRO gathers the packets of a flow.
func (p *Path) Late() map[int]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.late)
}

// attachEarly attaches the program early to an uplink, or notes why not. It is
// an error only if one cannot be taken away.
func (p *Path) attachEarly(i *netlink.LinkAttrs) error {
	why := betterLate(i)
	if why == nil {
		why = p.attachTo(p.early, i.Index, p.Early, func() (link.Link, error) {
			return link.AttachXDP(link.XDPOptions{Interface: i.Index, Program: p.Early, Flags: link.XDPDriverMode})
		})
	}
	if why == nil {
		delete(p.late, i.Index)
		return nil
	}
	p.late[i.Index] = why
	return p.detach(p.early, i.Index)
}

// betterLate says why an interface is better off without early. Whether the
// other end sends super-packets cannot be known; both ends of a link that has
// them have TSO on unless somebody turns it off.
func betterLate(i *netlink.LinkAttrs) error {
	offloads, err := netdev.OffloadsOf(i.Name)
	switch {
	case err != nil:
		return err
	case !offloads.GRO:
		return errNoGRO
	case offloads.TSO && slices.Contains(superPackets, offloads.Driver):
		return errSuperPackets
	}
	links, err := rtnl.Links(&netlink.Handle{})
	if err != nil {
		return err
	}
	return stacked(i, links)
}
