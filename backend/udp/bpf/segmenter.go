package bpf

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
)

// segmenterMTU lets any packet pass that the first end does not cut.
const segmenterMTU = 65535

// attachSegmenter has the programs use the device's segmenter, a veth pair, and
// returns the index of its second end. Without a segmenter, packets go to the TUN's
// reader.
func (p *Path) attachSegmenter() (index int, err error) {
	in, out, err := ensureSegmenter(p.tc, p.config.Device)
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
func ensureSegmenter(h *netlink.Handle, device int) (in, out int, err error) {
	tun, err := h.LinkByIndex(device)
	if err != nil {
		return 0, 0, fmt.Errorf("find tunnel device: %w", err)
	}
	first, second := netdev.Segmenter(tun.Attrs().Name)
	ends, err := pair(h, first, second)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = first, segmenterMTU
		if err := h.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: second, PeerMTU: segmenterMTU}); err != nil {
			return 0, 0, fmt.Errorf("make veth pair %s and %s: %w", first, second, err)
		}
		ends, err = pair(h, first, second)
	}
	if err != nil {
		return 0, 0, err
	}
	// The first end drops packets (noop_qdisc) for a moment if it is up before its peer.
	for _, l := range slices.Backward(ends) {
		if err := rtnl.SetUp(h, l); err != nil {
			return 0, 0, err
		}
	}
	// With it segmentation ends, too (netdev_fix_features in net/core/dev.c).
	return ends[0].Attrs().Index, ends[1].Attrs().Index, netdev.DisableTxChecksum(first)
}

// pair returns the two ends of a veth pair.
func pair(h *netlink.Handle, first, second string) (ends []netlink.Link, err error) {
	for _, name := range []string{first, second} {
		l, err := h.LinkByName(name)
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

// RemoveSegmenter deletes the segmenter of a TUN device. It returns nil if there is
// none.
func RemoveSegmenter(h *netlink.Handle, device string) error {
	first, _ := netdev.Segmenter(device)
	return rtnl.DeleteLink(h, first)
}
