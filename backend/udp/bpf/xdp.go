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

// Reasons against decap_xdp.
var (
	// XDP has no super-packets. With a program, veth turns off TSO at its other end
	// (veth_xdp_set, drivers/net/veth.c), and virtio lets the hypervisor send none
	// (virtnet_xdp_set, drivers/net/virtio_net.c). They gain more than GRO does.
	errSuperPackets = errors.New("super-packets cross this link whole, and with XDP would not")
	errNoGRO        = errors.New("GRO is off")
)

// superPackets are drivers whose links carry super-packets whole.
var superPackets = []string{"veth", "virtio_net"}

// XDPRefusals returns the uplinks without decap_xdp, by index, with the reason.
// There the tcx programs decapsulate, after GRO. At the others decap_xdp does so in
// the driver (native XDP), before GRO, which then joins the packets of a flow.
func (p *Path) XDPRefusals() map[int]error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.xdpRefusals)
}

// attachXDP attaches decap_xdp to an uplink, or records the reason against it. It
// fails only if it cannot detach one.
func (p *Path) attachXDP(i *netlink.LinkAttrs) error {
	refusal := xdpRefusal(i)
	if refusal == nil {
		refusal = p.attach(xdpLink(i.Index), i.Index, p.DecapXdp, func() (link.Link, error) {
			return link.AttachXDP(link.XDPOptions{Interface: i.Index, Program: p.DecapXdp, Flags: link.XDPDriverMode})
		})
	}
	if refusal == nil {
		delete(p.xdpRefusals, i.Index)
		return nil
	}
	p.xdpRefusals[i.Index] = refusal
	return p.detach(xdpLink(i.Index))
}

// xdpRefusal returns the reason against decap_xdp at an interface, or nil. TSO
// stands for super-packets of the link's other end, which is not visible: both ends
// have it on by default.
func xdpRefusal(i *netlink.LinkAttrs) error {
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
