package subnet

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
)

// leaseSet holds the leases that may be peers', and the peers among them. It turns the
// answers of a Source into the events that change the peers; a renewal or a
// repeated answer gives none. A lease of two families has two parts, which become
// peers independently: a fault of one does not hide the other.
//
// Peers never overlap, whatever the store holds. Of overlapping leases every host
// chooses the same one, in any order of events: the key alone decides (see
// outranks).
type leaseSet struct {
	// classify reports whether a lease's part of a family may be a peer's. fault is
	// set for a part that should not exist.
	classify func(*Lease, inet.Family) (peer bool, fault error)
	// allowed reports whether the configuration hands out a subnet.
	allowed func(netip.Prefix) bool
	bad     *BadData

	// stored are the leases of peers, by the subnets of both families. Several keys
	// may have the same subnet beside another one of the other family; they are in
	// order.
	stored map[netip.Prefix][]*Lease
	// subnets are stored's keys in order of address: a subnet is followed by all
	// that it contains.
	subnets []netip.Prefix
	peers   map[netip.Prefix]*Lease
	// hosts is the number of different leases in peers.
	hosts int
}

func newLeaseSet(classify func(*Lease, inet.Family) (bool, error), allowed func(netip.Prefix) bool, bad *BadData) *leaseSet {
	return &leaseSet{classify: classify, allowed: allowed, bad: bad,
		stored: make(map[netip.Prefix][]*Lease), peers: make(map[netip.Prefix]*Lease)}
}

// replace sets the leases to all, and returns the difference, in order of
// address. Removals come first, so that a subnet is free before an overlapping
// one is added.
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
		changed = s.drop(l, changed)
	}
	// In order of address each new subnet is appended, not inserted.
	for _, f := range inet.Families {
		for _, l := range sorted {
			changed = s.put(l, f, changed)
		}
	}
	return s.difference(changed)
}

// update applies a Source's events, and returns the difference like replace.
func (s *leaseSet) update(events []Event) []Event {
	var changed []netip.Prefix
	for _, e := range events {
		if e.Type == Removed {
			changed = s.drop(e.Lease, changed)
			continue
		}
		for _, f := range inet.Families {
			changed = s.put(e.Lease, f, changed)
		}
	}
	return s.difference(changed)
}

// put stores l's part of a family, and appends it to changed.
func (s *leaseSet) put(l *Lease, f inet.Family, changed []netip.Prefix) []netip.Prefix {
	p := l.SubnetOf(f)
	if !p.IsValid() {
		return changed
	}
	peer, fault := s.classify(l, f)
	if fault != nil {
		s.bad.Skip(l.Key(), fault)
	}
	if !peer {
		s.dropPart(l, p)
		return append(changed, p)
	}
	group := s.stored[p]
	if len(group) == 0 {
		i, _ := slices.BinarySearchFunc(s.subnets, p, netip.Prefix.Compare)
		s.subnets = slices.Insert(s.subnets, i, p)
	}
	i, found := slices.BinarySearchFunc(group, l, byKey)
	switch {
	case !found:
		group = slices.Insert(group, i, l)
	case !group[i].same(l): // otherwise the shared value stays
		group[i] = l
	}
	s.stored[p] = group
	return append(changed, p)
}

// drop removes the lease of l's key, and appends its parts to changed.
func (s *leaseSet) drop(l *Lease, changed []netip.Prefix) []netip.Prefix {
	for _, p := range l.Parts() {
		s.dropPart(l, p)
		changed = append(changed, p)
	}
	return changed
}

// dropPart removes the part p of the lease of l's key.
func (s *leaseSet) dropPart(l *Lease, p netip.Prefix) {
	group := s.stored[p]
	i, found := slices.BinarySearchFunc(group, l, byKey)
	if !found {
		return
	}
	if group = slices.Delete(group, i, i+1); len(group) > 0 {
		s.stored[p] = group
		return
	}
	delete(s.stored, p)
	if i, found := slices.BinarySearchFunc(s.subnets, p, netip.Prefix.Compare); found {
		s.subnets = slices.Delete(s.subnets, i, i+1)
	}
}

// difference updates peers after changes of stored. The Lease of its Removed
// events is the former one.
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
		if known && old.first() == p {
			s.hosts--
		}
		if is && l.first() == p {
			s.hosts++
		}
		switch f := inet.Of(p.Addr()); {
		case !is && known:
			delete(s.peers, p)
			removed = append(removed, Event{Removed, old, f})
		case is:
			s.peers[p] = l
			if !known || !old.Attrs.routesAs(l.Attrs) {
				added = append(added, Event{Added, l, f})
			}
		}
	}
	byAddr := func(a, b Event) int { return a.Subnet().Compare(b.Subnet()) }
	slices.SortFunc(removed, byAddr)
	slices.SortFunc(added, byAddr)
	return append(removed, added...)
}

// winner returns the lease by which p is a peer's; false if there is none or
// another subnet outranks it.
func (s *leaseSet) winner(p netip.Prefix) (*Lease, bool) {
	group := s.stored[p]
	if len(group) == 0 {
		return nil, false
	}
	for _, l := range group[1:] {
		s.bad.Skip(l.Key(), fmt.Errorf("key %q has the same subnet and takes precedence", group[0].Key()))
	}
	for q := range s.overlapping(p) {
		if s.outranks(q, p) { // promise: overlap-has-one-winner
			s.bad.Skip(group[0].Key(), fmt.Errorf("overlaps %v, which takes precedence", s.stored[q][0]))
			return nil, false
		}
	}
	return group[0], true
}

// outranks reports whether a takes precedence over an overlapping b. A subnet
// that the configuration hands out comes first, then the smaller one: a key that
// covers many hosts' subnets would do more damage.
func (s *leaseSet) outranks(a, b netip.Prefix) bool {
	if s.allowed(a) != s.allowed(b) {
		return s.allowed(a)
	}
	return a.Bits() > b.Bits()
}

// overlapping returns the stored subnets that contain p or lie in p, without p.
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

// byKey orders leases by IPv4 subnet, then by key.
func byKey(a, b *Lease) int {
	if c := a.Subnet.Compare(b.Subnet); c != 0 || a.IPv6Subnet == b.IPv6Subnet {
		return c
	}
	return cmp.Compare(a.Key(), b.Key())
}
