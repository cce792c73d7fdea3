package udp

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
)

const (
	// sparePeers is room for leases of another length than the configured one, as of an
	// earlier configuration.
	sparePeers = 1024
	// maxLengths is the number of different lengths in one of the programs' tables. A
	// packet costs a look-up for each.
	maxLengths = bpf.MaxLengths6
)

// maxKernelBits bounds the memory that the kernel reserves for the peers of a family. A
// usual IPv6 network has room for many more hosts than it has.
var maxKernelBits = [2]int{inet.IPv4: maxSlotBits, inet.IPv6: 14}

// kernelPeers are the peers, and which of them the programs' tables have. Whoever may
// write to the store may add leases of any length. The tables have room for all of
// the configured lengths, and for some others; the rest goes by the offloaded path.
type kernelPeers struct {
	all     map[netip.Prefix]bpf.Peer
	sides   [2]kernelSide
	written bool // the tables have the peers
	chosen  int  // number of peers in the tables
}

// kernelSide counts the peers of a family. regular is the room for subnets of the
// configured length.
type kernelSide struct {
	subnetLen, regular int
	lengths            [129]int
}

func newKernelPeers(p *pathConfig) kernelPeers {
	k := kernelPeers{all: make(map[netip.Prefix]bpf.Peer)}
	for _, f := range p.Inside() {
		side := p.Of(f)
		bits := min(side.SubnetLen-side.Network.Bits(), maxKernelBits[f])
		k.sides[f] = kernelSide{subnetLen: side.SubnetLen, regular: 1 << bits}
	}
	return k
}

// capacity is the room for the peers of each family.
func (k *kernelPeers) capacity() (most [2]int) {
	for f, side := range k.sides {
		if side.regular > 0 {
			most[f] = side.regular + sparePeers
		}
	}
	return most
}

func (k *kernelPeers) sideOf(s netip.Prefix) *kernelSide { return &k.sides[inet.Of(s.Addr())] }

// add adds a peer that is not there. The programs need one address of its host.
func (k *kernelPeers) add(p bpf.Peer) {
	if p.Addrs == [2]netip.Addr{} {
		return
	}
	k.all[p.Subnet] = p
	k.sideOf(p.Subnet).lengths[p.Subnet.Bits()]++
}

func (k *kernelPeers) remove(s netip.Prefix) {
	if _, known := k.all[s]; known {
		delete(k.all, s)
		k.sideOf(s).lengths[s.Bits()]--
	}
}

// hosts returns the peers' addresses of a family, each once.
func (k *kernelPeers) hosts(f inet.Family) []netip.Addr {
	seen := make(map[netip.Addr]bool, len(k.all))
	hosts := make([]netip.Addr, 0, len(k.all))
	for _, p := range k.all {
		if a := p.Addrs[f]; a.IsValid() && !seen[a] {
			seen[a] = true
			hosts = append(hosts, a)
		}
	}
	return hosts
}

// fit reports whether the tables have room for all peers.
func (k *kernelPeers) fit() bool { return k.sides[inet.IPv4].fit() && k.sides[inet.IPv6].fit() }

func (s *kernelSide) fit() bool {
	lengths, odd := 0, 0
	for length, n := range s.lengths {
		if n > 0 {
			lengths++
		}
		if length != s.subnetLen {
			odd += n
		}
	}
	return lengths <= maxLengths && s.lengths[s.subnetLen] <= s.regular && odd <= sparePeers
}

// choose returns the peers for the tables: those of the configured length first.
func (k *kernelPeers) choose() []bpf.Peer {
	all := slices.Collect(maps.Values(k.all))
	if k.fit() {
		return all
	}
	odd := func(p bpf.Peer) int {
		if p.Subnet.Bits() == k.sideOf(p.Subnet).subnetLen {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b bpf.Peer) int {
		return cmp.Or(cmp.Compare(odd(a), odd(b)), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()), a.Subnet.Compare(b.Subnet))
	})
	var room [2][2]int // by family, regular and odd
	var lengths [2]map[int]bool
	for f, side := range k.sides {
		room[f], lengths[f] = [2]int{side.regular, sparePeers}, make(map[int]bool)
	}
	return slices.DeleteFunc(all, func(p bpf.Peer) bool {
		f, bits := inet.Of(p.Subnet.Addr()), p.Subnet.Bits()
		left := &room[f][odd(p)]
		if *left == 0 || !lengths[f][bits] && len(lengths[f]) == maxLengths {
			return true
		}
		lengths[f][bits] = true
		*left--
		return false
	})
}

// leftOut returns the number of peers that the table has no room for.
func (k *kernelPeers) leftOut() int {
	if !k.written {
		return 0
	}
	return len(k.all) - k.chosen
}

// write writes the peers of some subnets to the programs' tables, and attaches the
// programs where their datagrams arrive.
func (k *kernel) write(changed []netip.Prefix) error {
	if !k.peers.fit() || k.peers.leftOut() > 0 {
		return k.writeAll()
	}
	var add []bpf.Peer
	var remove []netip.Prefix
	for _, s := range changed {
		if p, known := k.peers.all[s]; known {
			add = append(add, k.arriving(p))
		} else {
			remove = append(remove, s)
		}
	}
	if err := k.path.Apply(add, remove); err != nil {
		return err
	}
	k.peers.chosen = len(k.peers.all)
	if uplinks := k.allUplinks(); !slices.Equal(uplinks, k.uplinks) {
		return k.attach(uplinks)
	}
	return nil
}

// writeAll writes all peers that fit. The socket decides about the datagrams of the
// others; until the table has those that fit, about all that the programs would
// refuse.
func (k *kernel) writeAll() error {
	peers := k.peers.choose()
	for i, p := range peers {
		peers[i] = k.arriving(p)
	}
	complete := len(peers) == len(k.peers.all)
	if !complete {
		if err := k.path.SetIncomplete(true); err != nil {
			return err
		}
	}
	if err := k.path.Set(peers); err != nil {
		return err
	}
	if err := k.path.SetIncomplete(!complete); err != nil {
		return err
	}
	k.peers.written, k.peers.chosen = true, len(peers)
	return k.attach(k.allUplinks())
}

// arriving adds the interfaces that the peer's datagrams may arrive by.
func (k *kernel) arriving(p bpf.Peer) bpf.Peer {
	for f, a := range p.Addrs {
		copy(p.Uplinks[f][:], k.table.arrivalsOf(a))
	}
	return p
}
