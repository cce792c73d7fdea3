package bpf

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/ratelog"
)

// segmenterMTU lets any packet pass that the first end does not cut.
const segmenterMTU = 65535

// attachSegmenter has the programs use the device's segmenter, a veth pair, and
// returns the index of its second end. Without a segmenter, packets go to the TUN's
// reader.
func (p *Path) attachSegmenter() (index int, err error) {
	in, out, err := ensureSegmenter(p.config.Device)
	if err == nil {
		err = p.attachTC(p.decapHook(out), out, p.EncapL2, ebpf.AttachTCXIngress)
	}
	if err != nil {
		ratelog.Warningf("go on without segmenter device=%d reason=%q", p.config.Device, err)
		in, out = 0, 0
	}
	if err := p.Segmenter.Put(uint32(0), flannelSegmenter{In: uint32(in), Out: uint32(out)}); err != nil {
		return 0, fmt.Errorf("write segmenter: %w", err)
	}
	return out, nil
}

// ensureSegmenter makes the pair for a TUN device, unless it is there, and returns
// the indexes of its ends.
func ensureSegmenter(device int) (in, out int, err error) {
	tun, err := net.InterfaceByIndex(device)
	if err != nil {
		return 0, 0, fmt.Errorf("find tunnel device: %w", err)
	}
	first, second := netdev.Segmenter(tun.Name)
	ends, err := pair(first, second)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = first, segmenterMTU
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: second, PeerMTU: segmenterMTU}); err != nil {
			return 0, 0, fmt.Errorf("make veth pair %s and %s: %w", first, second, err)
		}
		ends, err = pair(first, second)
	}
	if err != nil {
		return 0, 0, err
	}
	// The first end drops packets (noop_qdisc) for a moment if it is up before its peer.
	for _, l := range slices.Backward(ends) {
		if err := setUp(l); err != nil {
			return 0, 0, err
		}
	}
	// With it segmentation ends, too (netdev_fix_features in net/core/dev.c).
	return ends[0].Attrs().Index, ends[1].Attrs().Index, netdev.DisableTxChecksum(first)
}

// pair returns the two ends of a veth pair.
func pair(first, second string) (ends []netlink.Link, err error) {
	for _, name := range []string{first, second} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil, fmt.Errorf("look up %s: %w", name, err)
		}
		ends = append(ends, l)
	}
	if ends[0].Type() != "veth" || ends[0].Attrs().ParentIndex != ends[1].Attrs().Index {
		return nil, fmt.Errorf("%s and %s are not a veth pair", first, second)
	}
	return ends, nil
}

// setUp sets a device up, without an IPv6 address: it would announce itself.
func setUp(l netlink.Link) error {
	if l.Attrs().Flags&net.FlagUp != 0 {
		return nil
	}
	// It fails if the kernel has no IPv6.
	_ = netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE)
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// RemoveSegmenter deletes the segmenter of a TUN device. It returns nil if there is
// none.
func RemoveSegmenter(h *netlink.Handle, device string) error {
	first, _ := netdev.Segmenter(device)
	l, err := h.LinkByName(first)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return nil
	}
	if err == nil {
		err = h.LinkDel(l)
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete segmenter %s: %w", first, err)
	}
	return nil
}
