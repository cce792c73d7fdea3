package udp

import (
	"cmp"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/coreos/flannel/pkg/inet"
)

// maxSlotBits bounds the slots to 2^16 (512 KiB) for any ratio of Network to
// SubnetLen. Subnets of one slot are chained.
const maxSlotBits = 16

// slots find the peer that holds an address of one family. A slot is a subnet of the
// configured length, so a look-up is an index, a load and a compare, without a
// lock. A change copies nothing. A slot has a chain only for leases of another
// length, left from an earlier configuration.
//
//	10.5.0.0/16, SubnetLen 24:   slots[3] ─► {10.5.3.0/24, peer} ─► nil
type slots struct {
	// base and mask are the network's.
	base, mask inet.Raw
	// The index are the highest bits of an address behind the network's. These begin in
	// Hi, if high is true, or in Lo, after left bits. All but 1+right bits of 64 belong
	// to the index.
	high        bool
	left, right uint
	slots       []atomic.Pointer[route]
}

// route is one link of a slot's chain, longest prefix first. It is immutable once
// stored.
type route struct {
	net, mask inet.Raw
	peer      *peer
	next      *route
}

func newSlots(network netip.Prefix, subnetLen int) *slots {
	network = network.Masked()
	bits := min(subnetLen-network.Bits(), maxSlotBits)
	behind := uint(network.Bits() + 128 - network.Addr().BitLen())
	return &slots{
		base: inet.RawOf(network.Addr()), mask: inet.MaskOf(network),
		high: behind < 64, left: behind % 64, right: uint(63 - bits),
		slots: make([]atomic.Pointer[route], 1<<bits),
	}
}

// lookup returns the peer whose subnet holds a, or nil.
func (s *slots) lookup(a inet.Raw) *peer {
	if s == nil || a.And(s.mask) != s.base {
		return nil
	}
	for r := s.slots[s.index(a)].Load(); r != nil; r = r.next {
		if a.And(r.mask) == r.net {
			return r.peer
		}
	}
	return nil
}

// index returns the slot of an address in network.
func (s *slots) index(a inet.Raw) uint64 {
	// Masks of 63 spare the compiler's test for longer shifts.
	left := s.left & 63
	bits := a.Lo << left
	if s.high {
		bits = a.Hi<<left | a.Lo>>1>>(63-left)
	}
	return bits >> 1 >> (s.right & 63)
}

// relink rebuilds the chains of p's slots from all peers. subnet.Manager delivers only
// subnets of Network, so each has a slot.
func (s *slots) relink(p netip.Prefix, peers map[netip.Prefix]*peer) {
	first := inet.RawOf(p.Addr())
	last := s.index(first.Or(inet.MaskOf(p).Not()))
	for i := s.index(first); i <= last; i++ {
		prefixes := []netip.Prefix{p}
		for r := s.slots[i].Load(); r != nil; r = r.next {
			if r.peer.subnet != p {
				prefixes = append(prefixes, r.peer.subnet)
			}
		}
		s.slots[i].Store(chain(prefixes, peers))
	}
}

// chain links the prefixes that have peers, longest first.
func chain(prefixes []netip.Prefix, peers map[netip.Prefix]*peer) *route {
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int {
		return cmp.Or(cmp.Compare(a.Bits(), b.Bits()), a.Compare(b))
	})
	var head *route
	for _, p := range prefixes {
		if peer := peers[p]; peer != nil {
			head = &route{net: inet.RawOf(p.Addr()), mask: inet.MaskOf(p), peer: peer, next: head}
		}
	}
	return head
}
