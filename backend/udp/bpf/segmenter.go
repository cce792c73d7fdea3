package bpf

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
)

// segmenterMTU lets any packet pass that the first end does not cut.
const segmenterMTU = 65535

// attachSegmenter makes the programs use the device's segmenter, a veth pair. It returns
// the indexes of the ends that have a program. Without a segmenter, packets go to the
// TUN's reader, and segments are not joined.
func (p *Path) attachSegmenter(uplinks []int) (ends []int, err error) {
	s, err := p.openSegmenter()
	if err != nil {
		err = fmt.Errorf("without segmenter: %w", err)
	} else if err = p.joinSegments(&s, p.withoutXDP(uplinks)); err != nil {
		err = fmt.Errorf("without joining segments of TCP: %w", err)
	}
	if p.loss = err; err != nil {
		ratelog.Warningf("kernel data path goes on device=%d loss=%q", p.config.Device, err)
	}
	if err := p.Segmenter.Put(uint32(0), s); err != nil {
		return nil, fmt.Errorf("write segmenter: %w", err)
	}
	if ends = []int{int(s.Out)}; s.Joined[0] != 0 {
		ends = append(ends, int(s.In))
	}
	return ends, nil
}

// Loss returns what the path goes on without since the last Attach, and the reason; nil
// for nothing.
func (p *Path) Loss() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loss
}

// openSegmenter makes the segmenter work. On failure it returns the value for none.
func (p *Path) openSegmenter() (flannelSegmenter, error) {
	in, out, err := ensureSegmenter(p.tc, p.config.Device)
	if err == nil {
		err = p.attachTC(p.decapHook(out), out, p.EncapL2, ebpf.AttachTCXIngress)
	}
	if err != nil {
		return flannelSegmenter{}, err
	}
	return flannelSegmenter{In: uint32(in), Out: uint32(out)}, nil
}

// joinSegments has the segmenter join segments of TCP that come by these uplinks, if the
// kernel can.
func (p *Path) joinSegments(s *flannelSegmenter, uplinks []uint32) error {
	if len(uplinks) == 0 || p.config.old {
		return nil
	}
	can, err := prepareJoin(int(s.In), int(s.Out))
	if !can || err != nil {
		return err
	}
	err = p.attachTC(p.decapHook(int(s.In)), int(s.In), p.Joined, ebpf.AttachTCXIngress) // promise: joined-segments-go-on
	if err != nil {
		return err
	}
	copy(s.Joined[:], uplinks)
	return nil
}

// withoutXDP returns the uplinks where decap unwraps segments one by one, which GRO
// could join.
func (p *Path) withoutXDP(uplinks []int) (indexes []uint32) {
	for _, index := range uplinks {
		if why := p.xdpRefusals[index]; why != nil && !errors.Is(why, errNoGRO) {
			indexes = append(indexes, uint32(index))
		}
	}
	return indexes
}

// prepareJoin turns on GRO at one end of the segmenter for packets from the other end. It
// returns false if the kernel has no GRO at veth without XDP. Before Linux 5.13, GRO of a
// new pair is on and has no effect (veth_disable_gro, drivers/net/veth.c).
func prepareJoin(in, out int) (bool, error) {
	first, err := net.InterfaceByIndex(in)
	if err != nil {
		return false, fmt.Errorf("look up first end of segmenter: %w", err)
	}
	second, err := net.InterfaceByIndex(out)
	if err != nil {
		return false, fmt.Errorf("look up second end of segmenter: %w", err)
	}
	o, err := netdev.OffloadsOf(second.Name)
	if err != nil || o.GRO {
		return false, err
	}
	// The kernel joins what comes from an end without TSO (veth_skb_is_eligible_for_gro).
	return true, errors.Join(netdev.DisableTSO(second.Name), netdev.EnableGRO(first.Name))
}

// ensureSegmenter makes the pair for a TUN device, unless it is there, and returns the
// indexes of its ends. It has a queue for each processor. The kernel sends packets from
// one queue of an uplink to one queue of the pair, so the order stays.
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
		queues := runtime.NumCPU()
		attrs.NumTxQueues, attrs.NumRxQueues = queues, queues
		if err := h.LinkAdd(&netlink.Veth{
			LinkAttrs: attrs, PeerName: second, PeerMTU: segmenterMTU, PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues),
		}); err != nil {
			if errors.Is(err, unix.EOPNOTSUPP) { // an unknown kind of device (rtnl_newlink, net/core/rtnetlink.c)
				err = fmt.Errorf("%w; load the module with \"modprobe veth\"", err)
			}
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
