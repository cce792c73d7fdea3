package rtnl

import (
	"net/netip"
	"slices"
)

// table is what owners want in each place. Several may want the same, as the
// two subnets of one host want its forwarding entry: it stays until the last
// of them no longer does. Where they want different things, the latest counts.
type table[K, V comparable] map[K][]V

// top is what counts in a place.
func (t table[K, V]) top(k K) (v V, wanted bool) {
	all := t[k]
	if len(all) == 0 {
		return v, false
	}
	return all[len(all)-1], true
}

// add puts in one[0]. As a rule it is alone in its place, and the owner's own
// slice, which nobody changes, does for both.
func (t table[K, V]) add(k K, one []V) {
	if t[k] == nil {
		t[k] = one[:1:1]
	} else {
		t[k] = append(t[k], one[0])
	}
}

func (t table[K, V]) remove(k K, v V) {
	all := t[k]
	for i := range all {
		if all[i] != v {
			continue
		}
		if len(all) == 1 {
			delete(t, k)
		} else {
			t[k] = slices.Concat(all[:i], all[i+1:])
		}
		return
	}
}

// change is what counted in a place before and after.
type change[V any] struct {
	before, after V
	was, is       bool
}

// exchange takes out and puts in, and returns the places that have changed.
func (t table[K, V]) exchange(out, in [][]V, key func(V) K) map[K]change[V] {
	changes := make(map[K]change[V], len(out)+len(in))
	for _, vs := range slices.Concat(out, in) {
		for _, v := range vs {
			var c change[V]
			c.before, c.was = t.top(key(v))
			changes[key(v)] = c
		}
	}
	for _, vs := range out {
		for _, v := range vs {
			t.remove(key(v), v)
		}
	}
	for _, vs := range in {
		for i, v := range vs {
			t.add(key(v), vs[i:])
		}
	}
	for k, c := range changes {
		c.after, c.is = t.top(k)
		if c.was == c.is && c.before == c.after {
			delete(changes, k)
		} else {
			changes[k] = c
		}
	}
	return changes
}

// routeKey is what the kernel tells routes of one table apart by, as far as we
// set it.
type routeKey struct {
	dst    netip.Prefix
	metric uint32
}

func (r Route) key() routeKey   { return routeKey{r.Dst, r.Metric} }
func (n Neigh) key() netip.Addr { return n.IP }
func (f FDB) key() MAC          { return f.MAC }

// desired is all that is wanted. Neighbours and forwarding entries are all on
// the one device of the backend's own.
type desired struct {
	routes table[routeKey, Route]
	neighs table[netip.Addr, Neigh]
	fdb    table[MAC, FDB]
}

func newDesired() desired {
	return desired{make(table[routeKey, Route]), make(table[netip.Addr, Neigh]), make(table[MAC, FDB])}
}
