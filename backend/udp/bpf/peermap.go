package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/coreos/flannel/pkg/inet"
)

// batch bounds the memory of one system call: a peer has a value for each CPU.
const batch = 1024

// peerMap is the kernel's map of the peers of a family.
type peerMap interface {
	add(peers []Peer) error
	rewrite(peers []Peer) error
	remove(subnets []netip.Prefix) error
	// read calls f with each peer, its counters summed over all CPUs.
	read(f func(netip.Prefix, flannelPeer)) error
}

// peersOf returns the map of a family.
func (p *Path) peersOf(f inet.Family) peerMap {
	if f == inet.IPv4 {
		return keyedPeers[flannelKey]{p.Peers, key4}
	}
	return keyedPeers[flannelKey6]{p.Peers6, key6}
}

// keyedPeers is a peerMap with subnets as keys of type K.
type keyedPeers[K interface{ prefix() netip.Prefix }] struct {
	*ebpf.Map
	key func(netip.Prefix) K
}

func (m keyedPeers[K]) add(peers []Peer) error {
	if len(peers) == 0 {
		return nil
	}
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	keys := make([]K, 0, min(len(peers), batch))
	values := make([]flannelPeer, 0, cap(keys)*cpus)
	for chunk := range slices.Chunk(peers, batch) {
		keys, values = keys[:0], values[:0]
		for _, peer := range chunk {
			var v flannelPeer
			peer.endpoint().put(&v)
			keys = append(keys, m.key(peer.Subnet))
			for range cpus {
				values = append(values, v)
			}
		}
		if _, err := m.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("add %d peers: %w", len(keys), err)
		}
	}
	return nil
}

// rewrite changes entries in place, a word at a time, so that every packet finds
// its peer. Packets that the programs count in that moment may be lost from the
// counters.
func (m keyedPeers[K]) rewrite(peers []Peer) error {
	for _, peer := range peers {
		var values []flannelPeer
		if err := m.Lookup(m.key(peer.Subnet), &values); err != nil {
			return fmt.Errorf("look up peer %v: %w", peer.Subnet, err)
		}
		for i := range values {
			peer.endpoint().put(&values[i])
		}
		if err := m.Update(m.key(peer.Subnet), values, ebpf.UpdateExist); err != nil {
			return fmt.Errorf("change peer %v: %w", peer.Subnet, err)
		}
	}
	return nil
}

func (m keyedPeers[K]) remove(subnets []netip.Prefix) error {
	if len(subnets) == 0 {
		return nil
	}
	keys := make([]K, 0, len(subnets))
	for _, s := range subnets {
		keys = append(keys, m.key(s))
	}
	if _, err := m.BatchDelete(keys, nil); err != nil {
		return fmt.Errorf("remove %d peers: %w", len(keys), err)
	}
	return nil
}

func (m keyedPeers[K]) read(f func(netip.Prefix, flannelPeer)) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	var (
		cursor ebpf.MapBatchCursor
		keys   = make([]K, batch)
		values = make([]flannelPeer, batch*cpus)
	)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
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
			f(keys[i].prefix(), sum)
		}
		if err != nil {
			return nil // ErrKeyNotExist: the last batch
		}
	}
}
