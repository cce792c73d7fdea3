package bpf

import (
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// batch bounds the memory of one system call: a peer has a value for every CPU.
const batch = 1024

// Peer is a subnet and the host that holds it.
type Peer struct {
	Subnet netip.Prefix
	// Addr is the host's address on the underlay: its packets come from there.
	Addr netip.Addr
	// Kernel says that the host runs this path, too. Packets for any other are
	// left to the reader of the TUN, since on virtual links its socket would be
	// given unsegmented packets and unfinished checksums.
	Kernel bool
}

func (p Peer) key() flannelKey {
	m := mask(p.Subnet.Bits())
	return flannelKey{Mask: m, Subnet: be32(p.Subnet.Addr()) & m}
}

func (p Peer) value() flannelPeer {
	v := flannelPeer{Addr: be32(p.Addr)}
	if p.Kernel {
		v.Kernel = 1
	}
	return v
}

func peerOf(k flannelKey, v flannelPeer) Peer {
	length := bits.OnesCount32(k.Mask)
	return Peer{Subnet: netip.PrefixFrom(addrOf(k.Subnet), length), Addr: addrOf(v.Addr), Kernel: v.Kernel != 0}
}

// Set makes peers the whole table. Those that stay keep their counters.
//
// After an error of Set or Apply the table is incomplete, and packets of a peer
// that it lacks are refused as forged: the path must be removed.
func (p *Path) Set(peers []Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := make(map[netip.Prefix]Peer, len(peers))
	for _, peer := range peers {
		next[peer.Subnet] = peer
	}
	return p.change(next)
}

// Apply adds or changes some peers and then removes those of some subnets.
func (p *Path) Apply(add []Peer, remove []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	next := maps.Clone(p.table)
	for _, peer := range add {
		next[peer.Subnet] = peer
	}
	for _, subnet := range remove {
		delete(next, subnet)
	}
	return p.change(next)
}

// change brings the kernel from p.table to next. Each packet meets a table that
// holds all peers that are in both.
func (p *Path) change(next map[netip.Prefix]Peer) error {
	var added, changed []Peer
	for subnet, peer := range next {
		if !peer.Addr.Is4() || !subnet.Addr().Is4() || subnet.Bits() < 1 || subnet != subnet.Masked() {
			return fmt.Errorf("change peers of kernel path: %v at %v is not an IPv4 subnet at an IPv4 address", subnet, peer.Addr)
		}
		if old, ok := p.table[subnet]; !ok {
			added = append(added, peer)
		} else if old != peer {
			changed = append(changed, peer)
		}
	}
	var removed []flannelKey
	for subnet, peer := range p.table {
		if _, ok := next[subnet]; !ok {
			removed = append(removed, peer.key())
		}
	}
	both := maps.Clone(p.table)
	maps.Copy(both, next)

	// Lengths and hosts first grow, and shrink when nothing refers to them.
	for _, step := range []func() error{
		func() error { return p.putLengths(both) },
		func() error { return p.putHosts(next) },
		func() error { return p.add(added) },
		func() error { return p.rewrite(changed) },
		func() error { return p.remove(removed) },
		func() error { return p.putLengths(next) },
		func() error { return p.removeHosts(next) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("change peers of kernel path: %w", err)
		}
	}
	p.table = next
	return nil
}

func (p *Path) add(peers []Peer) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	for chunk := range slices.Chunk(peers, batch) {
		keys := make([]flannelKey, 0, len(chunk))
		values := make([]flannelPeer, 0, len(chunk)*cpus)
		for _, peer := range chunk {
			keys = append(keys, peer.key())
			values = append(values, slices.Repeat([]flannelPeer{peer.value()}, cpus)...)
		}
		if _, err := p.Peers.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("add %d peers: %w", len(keys), err)
		}
	}
	return nil
}

// rewrite changes entries in place, a word at a time, so that no packet misses
// them. What the programs count in that moment is not seen to be counted.
func (p *Path) rewrite(peers []Peer) error {
	for _, peer := range peers {
		var values []flannelPeer
		if err := p.Peers.Lookup(peer.key(), &values); err != nil {
			return fmt.Errorf("look up peer %v: %w", peer.Subnet, err)
		}
		for i := range values {
			v := peer.value()
			values[i].Addr, values[i].Kernel = v.Addr, v.Kernel
		}
		if err := p.Peers.Update(peer.key(), values, ebpf.UpdateExist); err != nil {
			return fmt.Errorf("change peer %v: %w", peer.Subnet, err)
		}
	}
	return nil
}

func (p *Path) remove(keys []flannelKey) error {
	if len(keys) == 0 {
		return nil
	}
	if _, err := p.Peers.BatchDelete(keys, nil); err != nil {
		return fmt.Errorf("remove %d peers: %w", len(keys), err)
	}
	return nil
}

// putLengths writes the masks in use, longest first.
func (p *Path) putLengths(table map[netip.Prefix]Peer) error {
	var used [33]bool
	for subnet := range table {
		used[subnet.Bits()] = true
	}
	var m flannelMasks
	n := 0
	for length := len(used) - 1; length > 0; length-- {
		if used[length] {
			m.Mask[n] = mask(length)
			n++
		}
	}
	if err := p.Lengths.Put(uint32(0), m); err != nil {
		return fmt.Errorf("write lengths of subnets: %w", err)
	}
	return nil
}

func hostsOf(table map[netip.Prefix]Peer) map[uint32]struct{} {
	hosts := make(map[uint32]struct{}, len(table))
	for _, peer := range table {
		hosts[be32(peer.Addr)] = struct{}{}
	}
	return hosts
}

func (p *Path) putHosts(next map[netip.Prefix]Peer) error {
	old := hostsOf(p.table)
	var keys []uint32
	for host := range hostsOf(next) {
		if _, ok := old[host]; !ok {
			keys = append(keys, host)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if _, err := p.Hosts.BatchUpdate(keys, make([]uint32, len(keys)), nil); err != nil {
		return fmt.Errorf("add %d hosts: %w", len(keys), err)
	}
	return nil
}

func (p *Path) removeHosts(next map[netip.Prefix]Peer) error {
	left := hostsOf(next)
	for host := range hostsOf(p.table) {
		if _, ok := left[host]; ok {
			continue
		}
		if err := p.Hosts.Delete(host); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove host %v: %w", addrOf(host), err)
		}
	}
	return nil
}
