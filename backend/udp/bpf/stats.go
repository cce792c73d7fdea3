package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// reasonNames are those of the user-space paths where these refuse for the same
// reason. congestion_mark_lost: a router has marked the datagram, and the
// inner packet is of a flow that does not know about marks (RFC 6040 section
// 4.2: such a packet must be dropped).
var reasonNames = [flannelReasonREASONS]string{
	flannelReasonUNKNOWN_OUTER_SOURCE:       "unknown_outer_source",
	flannelReasonINNER_SOURCE_MISMATCH:      "inner_source_mismatch",
	flannelReasonINNER_DESTINATION_MISMATCH: "inner_destination_mismatch",
	flannelReasonCONGESTION_MARK_LOST:       "congestion_mark_lost",
}

// PeerStats counts the packets that were exchanged with a peer inside the
// kernel, since the programs were loaded or the peer added. A super-packet
// counts as the packets that it is on the wire. Bytes are those of inner
// packets.
type PeerStats struct {
	Peer
	TxPackets, TxBytes, RxPackets, RxBytes uint64
}

// Stats reads the peers' counters, in no order, and the count of refused
// packets for each reason.
func (p *Path) Stats() (peers []PeerStats, drops map[string]uint64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	err = p.readPeers(func(k flannelKey, v flannelPeer) {
		peers = append(peers, PeerStats{peerOf(k, v.owner()), v.TxPackets, v.TxBytes, v.RxPackets, v.RxBytes})
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

// readPeers calls f with each peer that the kernel has, and the sum of what all
// processors have counted.
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
