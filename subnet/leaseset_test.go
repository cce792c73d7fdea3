package subnet

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whoever applies the events that a leaseSet gives has, at each step, exactly
// the relevant leases of the store; and no event is superfluous.
func TestLeaseSet(t *testing.T) {
	relevant := func(l Lease) bool { return l.Attrs.BackendType == "" }
	leases := rapid.Custom(func(t *rapid.T) Lease {
		return Lease{
			Subnet: block(uint64(rapid.IntRange(0, 5).Draw(t, "subnet")), 24),
			Attrs: Attrs{
				PublicIP:    netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(t, "ip"))}),
				BackendType: rapid.SampledFrom([]string{"", "", "vxlan"}).Draw(t, "type"),
			},
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		set := newLeaseSet(relevant)
		store := make(map[netip.Prefix]Attrs) // relevant leases
		told := make(map[netip.Prefix]Attrs)
		apply := func(events []Event) {
			for _, e := range events {
				old, known := told[e.Lease.Subnet]
				switch {
				case e.Type == Removed && !known, e.Type == Added && known && old.Equal(e.Lease.Attrs):
					t.Fatalf("superfluous event %+v", e)
				case e.Type == Removed:
					delete(told, e.Lease.Subnet)
				default:
					told[e.Lease.Subnet] = e.Lease.Attrs
				}
			}
		}
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "replace") {
				unique := make(map[netip.Prefix]Lease)
				for _, l := range rapid.SliceOfN(leases, 0, 6).Draw(t, "all") {
					unique[l.Subnet] = l
				}
				clear(store)
				for p, l := range unique {
					if relevant(l) {
						store[p] = l.Attrs
					}
				}
				apply(set.replace(slices.Collect(maps.Values(unique))))
			} else {
				l := leases.Draw(t, "lease")
				e := Event{Added, l}
				delete(store, l.Subnet)
				if rapid.Bool().Draw(t, "removed") {
					e = Event{Removed, Lease{Subnet: l.Subnet}}
				} else if relevant(l) {
					store[l.Subnet] = l.Attrs
				}
				apply(set.update([]Event{e}))
			}
			if !maps.EqualFunc(store, told, Attrs.Equal) {
				t.Fatalf("told %v, the store has %v", told, store)
			}
		}
	})
}
