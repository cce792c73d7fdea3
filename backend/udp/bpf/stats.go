package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
)

// reasonNames are the names of the user-space paths for the same reasons.
// congestion_mark_lost: a router marked the datagram, and the flow of the inner packet is
// not ECN-capable. The packet must be dropped (RFC 6040 section 4.2).
// wrong_interface: no route of this host to the sender names the interface.
var reasonNames = [flannelReasonREASONS]string{
	flannelReasonUNKNOWN_OUTER_SOURCE:       "unknown_outer_source",
	flannelReasonINNER_SOURCE_MISMATCH:      "inner_source_mismatch",
	flannelReasonINNER_DESTINATION_MISMATCH: "inner_destination_mismatch",
	flannelReasonCONGESTION_MARK_LOST:       "congestion_mark_lost",
	flannelReasonWRONG_INTERFACE:            "wrong_interface",
}

// PeerStats counts the packets that the programs have sent to a peer and received from it.
// They begin when the programs are loaded or the peer is added. A super-packet counts as
// its packets on the wire. Bytes are those of inner packets.
type PeerStats struct {
	Peer
	TxPackets, TxBytes, RxPackets, RxBytes uint64
	// TxFast is the number of TxPackets that did not pass the TUN device.
	TxFast uint64
}

// Stats reads the peers' counters, in no order, and the refused packets by reason.
func (p *Path) Stats() (peers []PeerStats, drops map[string]uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.readPeers(func(subnet netip.Prefix, v flannelPeer) {
		peers = append(peers, PeerStats{v.endpoint().peer(subnet), v.TxPackets, v.TxBytes, v.RxPackets, v.RxBytes, v.TxFast})
	})
	if err != nil {
		return nil, nil, err
	}
	drops = make(map[string]uint64, len(reasonNames))
	for r, name := range reasonNames {
		var n []uint64
		if err := p.Drops.Lookup(uint32(r), &n); err != nil {
			return nil, nil, fmt.Errorf("read drops of kernel path: %w", err)
		}
		for _, v := range n {
			drops[name] += v
		}
	}
	return peers, drops, nil
}

// readPeers calls f with each peer of the kernel's tables, its counters summed over
// all CPUs.
func (p *Path) readPeers(f func(netip.Prefix, flannelPeer)) error {
	for _, family := range inet.Families {
		if err := p.peersOf(family).read(f); err != nil {
			return err
		}
	}
	return nil
}

// Check compares the kernel's table of peers and the attached programs with those
// of Set, Apply and Attach. The error names the difference.
func (p *Path) Check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return errors.Join(p.checkPeers(), p.checkLinks())
}

func (p *Path) checkPeers() error {
	right, wrong := 0, 0
	var example Peer
	err := p.readPeers(func(subnet netip.Prefix, v flannelPeer) {
		if e, known := p.table[subnet]; known && e == v.endpoint() {
			right++
		} else {
			wrong++
			example = v.endpoint().peer(subnet)
		}
	})
	switch {
	case err != nil:
		return err
	case wrong > 0:
		return fmt.Errorf("the kernel's table has %d peers that it should not have, such as %v at %v", wrong, example.Subnet, example.Addrs[example.Outer])
	case right < len(p.table):
		return fmt.Errorf("the kernel's table lacks %d of %d peers", len(p.table)-right, len(p.table))
	}
	return nil
}

func (p *Path) checkLinks() error {
	for _, name := range p.hookNames() {
		h := p.hooks[name]
		where := fmt.Sprintf("interface %d", h.index)
		if name == p.encapHook() {
			where = "the device"
		}
		why, err := p.misplaced(h, h.index)
		if err != nil {
			return fmt.Errorf("look at the program on %s: %w", where, err)
		}
		if why != nil {
			return fmt.Errorf("the program on %s %w", where, why)
		}
	}
	return nil
}

// CheckLinks is the part of Check about the attached programs. It takes some
// system calls.
func (p *Path) CheckLinks() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checkLinks()
}
