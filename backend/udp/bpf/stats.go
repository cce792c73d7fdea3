package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// reasonNames are the names of the user-space paths for the same reasons.
// congestion_mark_lost: a router marked the datagram, and the inner packet's flow
// is not ECN-capable; it must be dropped (RFC 6040 section 4.2).
// wrong_interface: no route of this host to the sender names the interface.
var reasonNames = [flannelReasonREASONS]string{
	flannelReasonUNKNOWN_OUTER_SOURCE:       "unknown_outer_source",
	flannelReasonINNER_SOURCE_MISMATCH:      "inner_source_mismatch",
	flannelReasonINNER_DESTINATION_MISMATCH: "inner_destination_mismatch",
	flannelReasonCONGESTION_MARK_LOST:       "congestion_mark_lost",
	flannelReasonWRONG_INTERFACE:            "wrong_interface",
}

// PeerStats counts the packets to and from a peer by the programs, since they were
// loaded or the peer was added. A super-packet counts as its packets on the wire.
// Bytes are those of inner packets.
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
	err = p.readPeers(func(k flannelKey, v flannelPeer) {
		peers = append(peers, PeerStats{peerOf(k, v.endpoint()), v.TxPackets, v.TxBytes, v.RxPackets, v.RxBytes, v.TxFast})
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

// readPeers calls f with each peer of the kernel's table, its counters summed over
// all CPUs.
func (p *Path) readPeers(f func(flannelKey, flannelPeer)) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	var (
		cursor ebpf.MapBatchCursor
		keys   = make([]flannelKey, batch)
		values = make([]flannelPeer, batch*cpus)
	)
	for {
		n, err := p.Peers.BatchLookup(&cursor, keys, values, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("read peers of kernel path: %w", err)
		}
		for i := range n {
			sum := values[i*cpus]
			for _, v := range values[i*cpus+1 : (i+1)*cpus] {
				sum.TxPackets += v.TxPackets
				sum.TxFast += v.TxFast
				sum.TxBytes += v.TxBytes
				sum.RxPackets += v.RxPackets
				sum.RxBytes += v.RxBytes
			}
			f(keys[i], sum)
		}
		if err != nil {
			return nil // ErrKeyNotExist: the last batch
		}
	}
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
	err := p.readPeers(func(k flannelKey, v flannelPeer) {
		if o, known := p.table[k]; known && o == v.endpoint() {
			right++
		} else {
			wrong++
			example = peerOf(k, v.endpoint())
		}
	})
	switch {
	case err != nil:
		return err
	case wrong > 0:
		return fmt.Errorf("the kernel's table has %d peers that it should not have, such as %v at %v", wrong, example.Subnet, example.Addr)
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
		why, err := h.Misplaced(h.index)
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
