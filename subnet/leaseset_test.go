package subnet

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// The events of a leaseSet, applied at each step, lead to the set that an oracle
// computes from the whole store. No two subnets overlap, not even between two
// events, and no event is superfluous.
func TestLeaseSet(t *testing.T) {
	classify := func(l *Lease) (bool, error) {
		if l.Attrs.BackendType == "bad" {
			return false, errors.New("bad")
		}
		return l.Attrs.BackendType == "", nil
	}
	allowed := func(p netip.Prefix) bool { return p.Bits() == 24 }
	leases := rapid.Custom(func(t *rapid.T) Lease {
		bits := rapid.SampledFrom([]int{21, 23, 24, 24, 24, 25, 26}).Draw(t, "bits")
		l := Lease{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(rapid.IntRange(0, 7).Draw(t, "third")), rapid.Byte().Draw(t, "fourth")}), bits).Masked(),
			Attrs: Attrs{
				PublicIP:    netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(t, "ip"))}),
				BackendType: rapid.SampledFrom([]string{"", "", "", "vxlan", "bad"}).Draw(t, "type"),
			},
		}
		if rapid.IntRange(0, 4).Draw(t, "dual") == 0 {
			l.IPv6Subnet = netip.MustParsePrefix("fd00::/64")
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		set := newLeaseSet(classify, allowed, &BadData{})
		store := make(map[string]Lease)
		told := make(map[netip.Prefix]Attrs)
		apply := func(events []Event) {
			for _, e := range events {
				old, known := told[e.Lease.Subnet]
				switch {
				case e.Type == Removed && !known, e.Type == Added && known && old.Equal(e.Lease.Attrs):
					t.Fatalf("superfluous event %+v", e)
				case e.Type == Removed:
					delete(told, e.Lease.Subnet)
					continue
				case !known && overlapsAny(e.Lease.Subnet, slices.Collect(maps.Keys(told))):
					t.Fatalf("%v overlaps one of %v", e.Lease, told)
				}
				told[e.Lease.Subnet] = e.Lease.Attrs
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "replace") {
				clear(store)
				for _, l := range rapid.SliceOfN(leases, 0, 6).Draw(t, "list") {
					store[l.Key()] = l
				}
				apply(set.replace(fullUpdate(slices.Collect(maps.Values(store))).leases))
			} else {
				l := leases.Draw(t, "lease")
				e := Event{Added, &l}
				store[l.Key()] = l
				if rapid.Bool().Draw(t, "removed") {
					e = Event{Removed, &l}
					delete(store, l.Key())
				}
				apply(set.update([]Event{e}))
			}
			if want := disjoint(store); !maps.EqualFunc(want, told, Attrs.Equal) {
				t.Fatalf("told %v, the store %v means %v", told, store, want)
			}
		}
	})
}

// disjoint is the oracle. It takes the leases of peers by precedence, each if it
// overlaps none before.
func disjoint(store map[string]Lease) map[netip.Prefix]Attrs {
	chosen := make(map[netip.Prefix]Attrs)
	for _, bits := range []int{24, 26, 25, 23, 21} {
		for _, key := range slices.Sorted(maps.Keys(store)) {
			l := store[key]
			if l.Attrs.BackendType == "" && l.Subnet.Bits() == bits && !overlapsAny(l.Subnet, slices.Collect(maps.Keys(chosen))) {
				chosen[l.Subnet] = l.Attrs
			}
		}
	}
	return chosen
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	return slices.ContainsFunc(taken, p.Overlaps)
}
