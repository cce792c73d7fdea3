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

// batch bounds the memory of one system call: a peer has a value for each CPU.
const batch = 1024

// Peer is a subnet and the host that holds it.
type Peer struct {
	Subnet netip.Prefix
	// Addr is the host's address on the underlay, the source of its datagrams.
	Addr netip.Addr
	// Kernel is true if the host runs this path. Packets to other hosts are left to
	// the TUN's reader: on virtual links their sockets would get unsegmented packets
	// and unfinished checksums.
	Kernel bool
	// Uplinks are the indexes of the interfaces that its datagrams may arrive by;
	// the rest is 0.
	Uplinks [MaxUplinks]uint32
}

// MaxUplinks is the number of interfaces that a peer's datagrams may arrive by.
const MaxUplinks = len(flannelPeer{}.Uplinks)

func (p Peer) validate() error {
	if s := p.Subnet; !s.IsValid() || !s.Addr().Is4() || s.Bits() < 1 || s != s.Masked() {
		return fmt.Errorf("%v is not an IPv4 subnet", s)
	}
	if !p.Addr.Is4() {
		return fmt.Errorf("%v, host of %v, is not an IPv4 address", p.Addr, p.Subnet)
	}
	return nil
}

// endpoint is a Peer's host. It is small, as there are tens of thousands.
type endpoint struct {
	addr    uint32
	kernel  bool
	uplinks [MaxUplinks]uint32
}

func (p Peer) endpoint() endpoint { return endpoint{inAddr(p.Addr), p.Kernel, p.Uplinks} }

func (v flannelPeer) endpoint() endpoint { return endpoint{v.Addr, v.Kernel != 0, v.Uplinks} }

func keyOf(subnet netip.Prefix) flannelKey {
	m := mask(subnet.Bits())
	return flannelKey{Mask: m, Subnet: inAddr(subnet.Addr()) & m}
}

func (k flannelKey) length() int { return bits.OnesCount32(k.Mask) }

func (p Peer) key() flannelKey { return keyOf(p.Subnet) }

func (p Peer) value() flannelPeer {
	v := flannelPeer{Addr: inAddr(p.Addr), Uplinks: p.Uplinks}
	if p.Kernel {
		v.Kernel = 1
	}
	return v
}

func peerOf(k flannelKey, o endpoint) Peer {
	return Peer{Subnet: netip.PrefixFrom(fromInAddr(k.Subnet), k.length()), Addr: fromInAddr(o.addr), Kernel: o.kernel, Uplinks: o.uplinks}
}

// Set replaces the table. Peers that stay keep their counters.
//
// After an error of Set or Apply the path must be removed: the table may be
// incomplete, and packets of a missing peer are refused as forged.
func (p *Path) Set(peers []Peer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	gone := maps.Clone(p.table)
	for _, peer := range peers {
		delete(gone, peer.key())
	}
	return p.change(peers, slices.Collect(maps.Keys(gone)))
}

// SetIncomplete marks the table as lacking peers. The programs then leave packets
// that they would refuse as forged to the socket.
func (p *Path) SetIncomplete(on bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.incomplete == on {
		return nil
	}
	p.incomplete = on
	return p.putLengths(p.lengths)
}

// Apply adds or changes some peers, and then removes those of some subnets.
func (p *Path) Apply(add []Peer, remove []netip.Prefix) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	keys := make([]flannelKey, 0, len(remove))
	for _, subnet := range remove {
		keys = append(keys, keyOf(subnet))
	}
	return p.change(add, keys)
}

// change writes lengths and hosts before the peers that have them, and removes them
// afterwards.
func (p *Path) change(add []Peer, remove []flannelKey) error {
	for _, peer := range add {
		if err := peer.validate(); err != nil {
			return fmt.Errorf("change peers of kernel path: %w", err)
		}
	}
	var added, changed []Peer
	var removed []flannelKey
	hosts := make(map[uint32]struct{}) // whose counts change
	for _, peer := range add {
		key, now := peer.key(), peer.endpoint()
		old, known := p.table[key]
		switch {
		case !known:
			added = append(added, peer)
		case old == now:
			continue
		default:
			changed = append(changed, peer)
			p.count(key, old, -1)
			hosts[old.addr] = struct{}{}
		}
		p.table[key] = now
		p.count(key, now, +1)
		hosts[now.addr] = struct{}{}
	}
	before := p.lengths
	for _, key := range remove {
		if old, known := p.table[key]; known {
			removed = append(removed, key)
			delete(p.table, key)
			p.count(key, old, -1)
			hosts[old.addr] = struct{}{}
		}
	}
	for _, step := range []func() error{
		func() error { return p.putLengths(before) },
		func() error { return p.putHosts(hosts) },
		func() error { return p.add(added) },
		func() error { return p.rewrite(changed) },
		func() error { return p.remove(removed) },
		func() error { return p.putLengths(p.lengths) },
		func() error { return p.removeHosts(hosts) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("change peers of kernel path: %w", err)
		}
	}
	return nil
}

// count changes the number of peers of a host and of a length.
func (p *Path) count(key flannelKey, o endpoint, by int) {
	p.lengths[key.length()] += by
	p.hosts[o.addr] += by
	if p.hosts[o.addr] == 0 {
		delete(p.hosts, o.addr)
	}
}

func (p *Path) add(peers []Peer) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	keys := make([]flannelKey, 0, min(len(peers), batch))
	values := make([]flannelPeer, 0, cap(keys)*cpus)
	for chunk := range slices.Chunk(peers, batch) {
		keys, values = keys[:0], values[:0]
		for _, peer := range chunk {
			keys = append(keys, peer.key())
			for range cpus {
				values = append(values, peer.value())
			}
		}
		if _, err := p.Peers.BatchUpdate(keys, values, nil); err != nil {
			return fmt.Errorf("add %d peers: %w", len(keys), err)
		}
	}
	return nil
}

// rewrite changes entries in place, a word at a time, so that every packet finds
// its peer. Packets that the programs count in that moment may be lost from the
// counters.
func (p *Path) rewrite(peers []Peer) error {
	for _, peer := range peers {
		var values []flannelPeer
		if err := p.Peers.Lookup(peer.key(), &values); err != nil {
			return fmt.Errorf("look up peer %v: %w", peer.Subnet, err)
		}
		for i := range values {
			v := peer.value()
			values[i].Addr, values[i].Kernel, values[i].Uplinks = v.Addr, v.Kernel, v.Uplinks
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
func (p *Path) putLengths(used [33]int) error {
	var m flannelMasks
	n := 0
	for length, peers := range slices.Backward(used[:]) {
		if peers > 0 {
			m.Mask[n] = mask(length)
			n++
		}
	}
	if p.incomplete {
		m.Incomplete = 1
	}
	if err := p.Lengths.Put(uint32(0), m); err != nil {
		return fmt.Errorf("write lengths of subnets: %w", err)
	}
	return nil
}

// putHosts adds the hosts that have peers.
func (p *Path) putHosts(hosts map[uint32]struct{}) error {
	var keys []uint32
	for host := range hosts {
		if p.hosts[host] > 0 {
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

// removeHosts removes the hosts that have no peers.
func (p *Path) removeHosts(hosts map[uint32]struct{}) error {
	for host := range hosts {
		if p.hosts[host] > 0 {
			continue
		}
		if err := p.Hosts.Delete(host); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("remove host %v: %w", fromInAddr(host), err)
		}
	}
	return nil
}
