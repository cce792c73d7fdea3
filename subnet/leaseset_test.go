package subnet

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/pkg/inet"
)

// The events of a leaseSet, applied at each step, lead to the set that an oracle
// computes from the whole store. No two subnets overlap, not even between two
// events, and no event is superfluous.
func TestLeaseSet(t *testing.T) {
	classify := func(l *Lease, _ inet.Family) (bool, error) {
		if l.Attrs.BackendType == "bad" {
			return false, errors.New("bad")
		}
		return l.Attrs.BackendType == "", nil
	}
	allowed := func(p netip.Prefix) bool { return p.Bits() == 24 || p.Bits() == 64 }
	leases := rapid.Custom(func(t *rapid.T) Lease {
		bits := rapid.SampledFrom([]int{21, 23, 24, 24, 24, 25, 26}).Draw(t, "bits")
		l := Lease{
			Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(rapid.IntRange(0, 7).Draw(t, "third")), rapid.Byte().Draw(t, "fourth")}), bits).Masked(),
			Attrs: Attrs{
				PublicIP:    netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(1, 2).Draw(t, "ip"))}),
				BackendType: rapid.SampledFrom([]string{"", "", "", "vxlan", "bad"}).Draw(t, "type"),
			},
		}
		if rapid.IntRange(0, 2).Draw(t, "dual") > 0 {
			l.IPv6Subnet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 7: byte(rapid.IntRange(0, 7).Draw(t, "sixth")) << 5}),
				rapid.SampledFrom([]int{58, 60, 64, 64, 68}).Draw(t, "bits6")).Masked()
			if rapid.IntRange(0, 3).Draw(t, "alone") == 0 {
				l.Subnet = netip.Prefix{}
			}
		}
		return l
	})
	rapid.Check(t, func(t *rapid.T) {
		set := newLeaseSet(classify, allowed, &BadData{})
		store := make(map[string]Lease)
		told := make(map[netip.Prefix]Attrs)
		apply := func(events []Event) {
			for _, e := range events {
				old, known := told[e.Subnet()]
				switch {
				case e.Type == Removed && !known, e.Type == Added && known && old.Equal(e.Lease.Attrs):
					t.Fatalf("superfluous event %+v", e)
				case e.Type == Removed:
					delete(told, e.Subnet())
					continue
				case !known && overlapsAny(e.Subnet(), slices.Collect(maps.Keys(told))):
					t.Fatalf("%v overlaps one of %v", e.Lease, told)
				}
				told[e.Subnet()] = e.Lease.Attrs
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
				e := Event{Type: Added, Lease: &l}
				store[l.Key()] = l
				if rapid.Bool().Draw(t, "removed") {
					e = Event{Type: Removed, Lease: &l}
					delete(store, l.Key())
				}
				apply(set.update([]Event{e}))
			}
			if hosts := countHosts(set.peers); set.hosts != hosts {
				t.Fatalf("%d hosts counted, there are %d", set.hosts, hosts)
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
	keys := slices.SortedFunc(maps.Keys(store), func(a, b string) int {
		l, m := store[a], store[b]
		return byKey(&l, &m)
	})
	for _, bits := range []int{24, 26, 25, 23, 21, 64, 68, 60, 58} {
		for _, key := range keys {
			for _, f := range inet.Families {
				l := store[key]
				p := l.SubnetOf(f)
				if l.Attrs.BackendType == "" && p.IsValid() && p.Bits() == bits && !overlapsAny(p, slices.Collect(maps.Keys(chosen))) {
					chosen[p] = l.Attrs
				}
			}
		}
	}
	return chosen
}

// countHosts returns how many of the peers' leases have their first part among them.
func countHosts(peers map[netip.Prefix]*Lease) (n int) {
	for p, l := range peers {
		if l.first() == p {
			n++
		}
	}
	return n
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	return slices.ContainsFunc(taken, p.Overlaps)
}
