package bpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/tchook"
)

// Reasons against decap_xdp.
var (
	// XDP has no super-packets. With a program, veth turns off TSO at its other end
	// (veth_xdp_set, drivers/net/veth.c), and virtio lets the hypervisor send none
	// (virtnet_xdp_set, drivers/net/virtio_net.c). They gain more than GRO does.
	errSuperPackets = errors.New("super-packets cross this link whole, and with XDP would not")
	errLargeMTU     = errors.New("its MTU is too large for XDP; Linux 5.18 or newer with a driver for several buffers takes it")
	// veth begins without GRO. Other drivers begin with it, so there it is off on purpose.
	errVethNoGRO = errors.New("GRO is off, as veth begins")
	errNoGRO     = errors.New("GRO is off")

	errNoNative   = errors.New("its driver has no XDP, or not with its present settings (see: dmesg)")
	errXDPTaken   = errors.New("another program has its XDP (see: bpftool net)")
	errXDPRefused = errors.New("its driver refuses XDP with the present MTU or queues (see: dmesg)")
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
		refusal = p.attach(xdpLink(i.Index), i.Index, p.DecapXdp, func() (tchook.Hook, error) {
			l, err := link.AttachXDP(link.XDPOptions{Interface: i.Index, Program: p.DecapXdp, Flags: link.XDPDriverMode})
			return tchook.Link{Link: l}, explainXDP(err)
		})
	}
	if refusal == nil {
		delete(p.xdpRefusals, i.Index)
		return nil
	}
	p.xdpRefusals[i.Index] = refusal
	return p.detach(xdpLink(i.Index))
}

// explainXDP puts the kernel's error about a program of XDP in words. A driver without XDP
// has EOPNOTSUPP, and a program of others EBUSY for a link, or EEXIST in another mode
// (dev_xdp_attach, net/core/dev.c). Drivers have ERANGE, EINVAL or EOPNOTSUPP for settings
// that XDP does not go with, and say more in the kernel's log.
func explainXDP(err error) error {
	is := func(errno unix.Errno) bool { return errors.Is(err, errno) }
	switch {
	case is(unix.EOPNOTSUPP):
		return errNoNative
	case is(unix.EBUSY), is(unix.EEXIST):
		return errXDPTaken
	case is(unix.ERANGE):
		return errLargeMTU
	case is(unix.EINVAL):
		return errXDPRefused
	}
	return err
}

// xdpRefusal returns the reason against decap_xdp at an interface, or nil. TSO
// stands for super-packets of the link's other end, which is not visible: both ends
// have it on by default.
func xdpRefusal(i *netlink.LinkAttrs) error {
	offloads, err := netdev.OffloadsOf(i.Name)
	switch {
	case err != nil:
		return err
	case !offloads.GRO && offloads.Driver != "veth":
		return errNoGRO
	case offloads.TSO && slices.Contains(superPackets, offloads.Driver):
		return errSuperPackets
	case !offloads.GRO:
		return errVethNoGRO
	}
	links, err := rtnl.Links(&netlink.Handle{})
	if err != nil {
		return err
	}
	return stacked(i, links)
}

// errShared: the kernel passes some of the uplink's frames to another interface of this
// host. decap_xdp cannot always see which. Network cards report a VLAN tag beside the
// frame. A MACVLAN has its own table of hardware addresses. Bridges and bonds have their
// own rules. decap_xdp would decapsulate the other interface's datagram, and that
// interface would get the inner packet.
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
