package subnet

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// leaseSet is what the store holds, and which of it are the peers. It turns
// what a registry says into the events that change the peers, and nothing
// else: a renewal, or news that it knew already, gives none.
//
// Peers never overlap, whatever the store holds. Of leases that do, every host
// picks the same one, in whatever order it heard of them: what decides is the
// key alone (see outranks).
type leaseSet struct {
	// judge says whether a lease may be a peer's; fault is for one that has no
	// business to be there.
	judge func(*Lease) (peer bool, fault error)
	// allowed says which subnets the configuration hands out.
	allowed func(netip.Prefix) bool
	bad     *BadData

	// stored are the leases that judge has let pass. Several keys may name one
	// subnet (a dual-stack host's names an IPv6 one as well); they are in order.
	stored map[netip.Prefix][]*Lease
	// subnets are stored's keys in order of address, so that what lies inside a
	// subnet stands behind it in a row.
	subnets []netip.Prefix
	peers   map[netip.Prefix]*Lease
}

func newLeaseSet(judge func(*Lease) (bool, error), allowed func(netip.Prefix) bool, bad *BadData) *leaseSet {
	return &leaseSet{judge: judge, allowed: allowed, bad: bad,
		stored: make(map[netip.Prefix][]*Lease), peers: make(map[netip.Prefix]*Lease)}
}

// replace makes all the truth, and returns the difference: removals first, so
// that a subnet is free before an overlapping one is added, each in order of
// address.
func (s *leaseSet) replace(all []*Lease) []Event {
	sorted := slices.SortedFunc(slices.Values(all), byKey)
	var unlisted []*Lease
	for _, group := range s.stored {
		for _, l := range group {
			if _, listed := slices.BinarySearchFunc(sorted, l, byKey); !listed {
				unlisted = append(unlisted, l)
			}
		}
	}
	changed := make([]netip.Prefix, 0, len(unlisted)+len(sorted))
	for _, l := range unlisted {
		s.drop(l)
		changed = append(changed, l.Subnet)
	}
	// In order of address each new subnet is appended, not inserted.
	for _, l := range sorted {
		s.put(l)
		changed = append(changed, l.Subnet)
	}
	return s.difference(changed)
}

// update applies a registry's events, and returns the difference as replace does.
func (s *leaseSet) update(events []Event) []Event {
	var changed []netip.Prefix
	for _, e := range events {
		if e.Type == Removed {
			s.drop(e.Lease)
		} else {
			s.put(e.Lease)
		}
		changed = append(changed, e.Lease.Subnet)
	}
	return s.difference(changed)
}

func (s *leaseSet) put(l *Lease) {
	peer, fault := s.judge(l)
	if fault != nil {
		s.bad.Skip(l.Key(), fault)
	}
	if !peer {
		s.drop(l)
		return
	}
	group := s.stored[l.Subnet]
	if len(group) == 0 {
		i, _ := slices.BinarySearchFunc(s.subnets, l.Subnet, netip.Prefix.Compare)
		s.subnets = slices.Insert(s.subnets, i, l.Subnet)
	}
	i, found := slices.BinarySearchFunc(group, l, byKey)
	switch {
	case !found:
		group = slices.Insert(group, i, l)
	case !group[i].same(l): // else the value that others have, too, will do
		group[i] = l
	}
	s.stored[l.Subnet] = group
}

// drop forgets the lease of l's key.
func (s *leaseSet) drop(l *Lease) {
	group := s.stored[l.Subnet]
	i, found := slices.BinarySearchFunc(group, l, byKey)
	if !found {
		return
	}
	if group = slices.Delete(group, i, i+1); len(group) > 0 {
		s.stored[l.Subnet] = group
		return
	}
	delete(s.stored, l.Subnet)
	if i, found := slices.BinarySearchFunc(s.subnets, l.Subnet, netip.Prefix.Compare); found {
		s.subnets = slices.Delete(s.subnets, i, i+1)
	}
}

// difference brings peers up to date where stored has changed. What it says was
// removed is the lease as it was.
func (s *leaseSet) difference(changed []netip.Prefix) []Event {
	affected := make(map[netip.Prefix]bool)
	for _, p := range changed {
		affected[p] = true
		for q := range s.overlapping(p) {
			affected[q] = true
		}
	}
	var removed, added []Event
	for p := range affected {
		old, known := s.peers[p]
		l, is := s.winner(p)
		switch {
		case !is && known:
			delete(s.peers, p)
			removed = append(removed, Event{Removed, old})
		case is:
			s.peers[p] = l
			if !known || !old.Attrs.routesAs(l.Attrs) {
				added = append(added, Event{Added, l})
			}
		}
	}
	byAddr := func(a, b Event) int { return a.Lease.Subnet.Compare(b.Lease.Subnet) }
	slices.SortFunc(removed, byAddr)
	slices.SortFunc(added, byAddr)
	return append(removed, added...)
}

// winner is the lease that makes p a peer's; false if there is none or another
// subnet outranks it.
func (s *leaseSet) winner(p netip.Prefix) (*Lease, bool) {
	group := s.stored[p]
	if len(group) == 0 {
		return nil, false
	}
	for _, l := range group[1:] {
		s.bad.Skip(l.Key(), fmt.Errorf("key %q names the same subnet, and counts", group[0].Key()))
	}
	for q := range s.overlapping(p) {
		if s.outranks(q, p) {
			s.bad.Skip(group[0].Key(), fmt.Errorf("overlaps %v, which counts", s.stored[q][0]))
			return nil, false
		}
	}
	return group[0], true
}

// outranks reports whether a counts where it overlaps b: a subnet that the
// configuration hands out before all others, then the smaller one, for the
// damage of a key that covers many hosts' subnets.
func (s *leaseSet) outranks(a, b netip.Prefix) bool {
	if s.allowed(a) != s.allowed(b) {
		return s.allowed(a)
	}
	return a.Bits() > b.Bits()
}

// overlapping are the stored subnets that p lies in and those that lie in p,
// but not p.
func (s *leaseSet) overlapping(p netip.Prefix) iter.Seq[netip.Prefix] {
	return func(yield func(netip.Prefix) bool) {
		for bits := range p.Bits() {
			q := netip.PrefixFrom(p.Addr(), bits).Masked()
			if _, ok := s.stored[q]; ok && !yield(q) {
				return
			}
		}
		i, found := slices.BinarySearchFunc(s.subnets, p, netip.Prefix.Compare)
		if found {
			i++
		}
		for ; i < len(s.subnets) && p.Contains(s.subnets[i].Addr()); i++ {
			if !yield(s.subnets[i]) {
				return
			}
		}
	}
}

// byKey orders leases by subnet, and one subnet's by key.
func byKey(a, b *Lease) int {
	if c := a.Subnet.Compare(b.Subnet); c != 0 || a.IPv6Subnet == b.IPv6Subnet {
		return c
	}
	return cmp.Compare(a.Key(), b.Key())
}
