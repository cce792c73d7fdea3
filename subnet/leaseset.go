package subnet

import (
	"maps"
	"net/netip"
	"slices"
)

// leaseSet is the set of peers that the data plane has been told of. It turns
// what a registry says into the events that change it, and nothing else: a
// renewal, or news that it knew already, gives none.
type leaseSet struct {
	// relevant says whether a lease is a peer's at all.
	relevant func(Lease) bool
	peers    map[netip.Prefix]Lease
}

func newLeaseSet(relevant func(Lease) bool) *leaseSet {
	return &leaseSet{relevant: relevant, peers: make(map[netip.Prefix]Lease)}
}

// replace makes all the truth, and returns the difference: removals first, so
// that a subnet is free before an overlapping one is added, each in order of
// address.
func (s *leaseSet) replace(all []Lease) []Event {
	listed := make(map[netip.Prefix]bool, len(all))
	for _, l := range all {
		listed[l.Subnet] = true
	}
	var events []Event
	for _, p := range sorted(maps.Keys(s.peers)) {
		if !listed[p] {
			events = append(events, s.remove(p)...)
		}
	}
	for _, l := range slices.SortedFunc(slices.Values(all), func(a, b Lease) int {
		return a.Subnet.Compare(b.Subnet)
	}) {
		events = append(events, s.put(l)...)
	}
	return events
}

// update applies a registry's events in their order and returns what changed.
func (s *leaseSet) update(events []Event) []Event {
	var changes []Event
	for _, e := range events {
		if e.Type == Removed {
			changes = append(changes, s.remove(e.Lease.Subnet)...)
		} else {
			changes = append(changes, s.put(e.Lease)...)
		}
	}
	return changes
}

func (s *leaseSet) put(l Lease) []Event {
	old, known := s.peers[l.Subnet]
	switch {
	case !s.relevant(l):
		return s.remove(l.Subnet)
	case known && old.Attrs.Equal(l.Attrs):
		s.peers[l.Subnet] = l
		return nil
	}
	s.peers[l.Subnet] = l
	return []Event{{Added, l}}
}

func (s *leaseSet) remove(p netip.Prefix) []Event {
	if _, known := s.peers[p]; !known {
		return nil
	}
	delete(s.peers, p)
	return []Event{{Removed, Lease{Subnet: p}}}
}

func sorted(seq func(func(netip.Prefix) bool)) []netip.Prefix {
	return slices.SortedFunc(seq, netip.Prefix.Compare)
}
