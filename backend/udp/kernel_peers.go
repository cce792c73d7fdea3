package udp

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/backend/udp/bpf"
)

const (
	// maxKernelPeers bounds the memory that the kernel reserves for the peers.
	maxKernelPeers = 1 << maxSlotBits
	// sparePeers is room for leases of another length than SubnetLen, as of an
	// earlier configuration.
	sparePeers = 1024
	// maxLengths is the number of different lengths in the programs' table. A
	// packet costs a look-up for each.
	maxLengths = 8
)

// kernelPeers are the peers, and which of them the programs' table has. Whoever may
// write to the store may add leases of any length. The table has room for all of
// the configured length, and for some others; the rest goes by the offloaded path.
type kernelPeers struct {
	subnetLen, regular int // regular is the room for subnets of that length
	all                map[netip.Prefix]bpf.Peer
	lengths            [33]int
	written            bool // the table has the peers
	chosen             int  // number of peers in the table
}

func newKernelPeers(p *pathConfig) kernelPeers {
	return kernelPeers{
		subnetLen: p.SubnetLen, regular: min(1<<(p.SubnetLen-p.Network.Bits()), maxKernelPeers),
		all: make(map[netip.Prefix]bpf.Peer),
	}
}

func (k *kernelPeers) capacity() int { return k.regular + sparePeers }

func (k *kernelPeers) add(p bpf.Peer) {
	k.remove(p.Subnet)
	k.all[p.Subnet] = p
	k.lengths[p.Subnet.Bits()]++
}

func (k *kernelPeers) remove(s netip.Prefix) {
	if _, known := k.all[s]; known {
		delete(k.all, s)
		k.lengths[s.Bits()]--
	}
}

// hosts returns the peers' addresses, each once.
func (k *kernelPeers) hosts() []netip.Addr {
	seen := make(map[netip.Addr]bool, len(k.all))
	hosts := make([]netip.Addr, 0, len(k.all))
	for _, p := range k.all {
		if !seen[p.Addr] {
			seen[p.Addr] = true
			hosts = append(hosts, p.Addr)
		}
	}
	return hosts
}

// fit reports whether the table has room for all peers.
func (k *kernelPeers) fit() bool {
	lengths := 0
	for _, n := range k.lengths {
		if n > 0 {
			lengths++
		}
	}
	regular := k.lengths[k.subnetLen]
	return lengths <= maxLengths && regular <= k.regular && len(k.all)-regular <= sparePeers
}

// choose returns the peers for the table: those of the configured length first.
func (k *kernelPeers) choose() []bpf.Peer {
	all := make([]bpf.Peer, 0, len(k.all))
	for _, p := range k.all {
		all = append(all, p)
	}
	if k.fit() {
		return all
	}
	odd := func(p bpf.Peer) int {
		if p.Subnet.Bits() == k.subnetLen {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b bpf.Peer) int {
		return cmp.Or(cmp.Compare(odd(a), odd(b)), cmp.Compare(a.Subnet.Bits(), b.Subnet.Bits()), a.Subnet.Compare(b.Subnet))
	})
	var lengths [33]bool
	count := 0
	room := [2]int{k.regular, sparePeers}
	return slices.DeleteFunc(all, func(p bpf.Peer) bool {
		bits, kind := p.Subnet.Bits(), odd(p)
		if room[kind] == 0 || !lengths[bits] && count == maxLengths {
			return true
		}
		if !lengths[bits] {
			lengths[bits] = true
			count++
		}
		room[kind]--
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

// write writes the peers of some subnets to the programs' table, and attaches the
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
	copy(p.Uplinks[:], k.table.arrivalsOf(p.Addr))
	return p
}
