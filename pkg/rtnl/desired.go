package rtnl

import (
	"net/netip"
	"slices"
)

// desired is the sum of what all owners desire.
type desired struct {
	routes table[routeKey, Route]
	neighs table[neighKey, Neigh]
}

func newDesired() desired {
	return desired{make(table[routeKey, Route]), make(table[neighKey, Neigh])}
}

// routeKey identifies a route in the kernel's main table, as far as we set it.
type routeKey struct {
	dst    netip.Prefix
	metric uint32
}

func (r Route) key() routeKey { return routeKey{r.Dst, r.Metric} }

// neighKey identifies a neighbour by ip, and a forwarding entry by mac.
type neighKey struct {
	ip  netip.Addr
	mac MAC
}

func (n Neigh) key() neighKey {
	if n.FDB {
		return neighKey{mac: n.MAC}
	}
	return neighKey{ip: n.IP}
}

// entry is a Route or a Neigh.
type entry[K comparable] interface {
	comparable
	key() K
}

// table maps each key to the entries that owners desire there, the latest last.
// Several owners may desire the same, as two subnets of one host desire its
// forwarding entry. If they desire different ones, the latest counts.
type table[K comparable, V entry[K]] map[K][]*V

// get returns the entry that counts; nil if there is none.
func (t table[K, V]) get(k K) *V {
	if all := t[k]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// add keeps entries, which must not change any more.
func (t table[K, V]) add(entries []V) {
	for i := range entries {
		k := entries[i].key()
		t[k] = append(t[k], &entries[i])
	}
}

// remove undoes one add of each entry.
func (t table[K, V]) remove(entries []V) {
	for _, v := range entries {
		k := v.key()
		if i := slices.IndexFunc(t[k], func(e *V) bool { return *e == v }); i >= 0 {
			t[k] = slices.Delete(t[k], i, i+1)
		}
		if len(t[k]) == 0 {
			delete(t, k)
		}
	}
}

// change is what was desired at a key and what is desired now; nil is nothing.
type change[V any] struct{ before, after *V }

// replace removes the entries of some States and adds those of others. It returns
// the changes.
func (t table[K, V]) replace(before, after []State, entries func(State) []V) map[K]change[V] {
	changes := make(map[K]change[V], len(before)+len(after))
	for _, s := range slices.Concat(before, after) {
		for _, v := range entries(s) {
			changes[v.key()] = change[V]{before: t.get(v.key())}
		}
	}
	for _, s := range before {
		t.remove(entries(s))
	}
	for _, s := range after {
		t.add(entries(s))
	}
	for k, c := range changes {
		c.after = t.get(k)
		if c.before == c.after || c.before != nil && c.after != nil && *c.before == *c.after {
			delete(changes, k)
		} else {
			changes[k] = c
		}
	}
	return changes
}
