package rtnl

import (
	"net/netip"
	"slices"
)

// desired is the sum of what all owners desire, by the keys that the kernel has
// for entries. Neighbours and forwarding entries are all on the one device.
type desired struct {
	routes table[routeKey, Route]
	neighs table[netip.Addr, Neigh]
	fdb    table[MAC, FDB]
}

func newDesired() desired {
	return desired{make(table[routeKey, Route]), make(table[netip.Addr, Neigh]), make(table[MAC, FDB])}
}

// add adds what one owner desires.
func (d desired) add(s State) {
	for i := range s.Routes {
		d.routes.add(s.Routes[i].key(), &s.Routes[i])
	}
	for i := range s.Neighs {
		d.neighs.add(s.Neighs[i].key(), &s.Neighs[i])
	}
	for i := range s.FDB {
		d.fdb.add(s.FDB[i].key(), &s.FDB[i])
	}
}

// routeKey identifies a route in the kernel's main table, as far as we set it.
type routeKey struct {
	dst    netip.Prefix
	metric uint32
}

func (r Route) key() routeKey   { return routeKey{r.Dst, r.Metric} }
func (n Neigh) key() netip.Addr { return n.IP }
func (f FDB) key() MAC          { return f.MAC }

func routesOf(s State) []Route { return s.Routes }
func neighsOf(s State) []Neigh { return s.Neighs }
func fdbOf(s State) []FDB      { return s.FDB }

// table maps each key to the entries that owners desire there, the latest last.
// Several owners may desire the same, as two subnets of one host desire its
// forwarding entry. If they desire different ones, the latest counts.
type table[K, V comparable] map[K][]*V

// get returns the entry that counts.
func (t table[K, V]) get(k K) (v V, found bool) {
	if e := t.latest(k); e != nil {
		return *e, true
	}
	return v, false
}

func (t table[K, V]) latest(k K) *V {
	if all := t[k]; len(all) > 0 {
		return all[len(all)-1]
	}
	return nil
}

// add keeps v, which must not change any more.
func (t table[K, V]) add(k K, v *V) { t[k] = append(t[k], v) }

// remove undoes one add of v.
func (t table[K, V]) remove(k K, v V) {
	if i := slices.IndexFunc(t[k], func(e *V) bool { return *e == v }); i >= 0 {
		t[k] = slices.Delete(t[k], i, i+1)
	}
	if len(t[k]) == 0 {
		delete(t, k)
	}
}

// change is what was desired at a key and what is desired now; nil is nothing.
type change[V any] struct{ before, after *V }

// replace removes the entries of some States and adds those of others. It returns
// the changes.
func (t table[K, V]) replace(before, after []State, entries func(State) []V, key func(V) K) map[K]change[V] {
	changes := make(map[K]change[V], len(before)+len(after))
	for _, s := range slices.Concat(before, after) {
		for _, v := range entries(s) {
			changes[key(v)] = change[V]{before: t.latest(key(v))}
		}
	}
	for _, s := range before {
		for _, v := range entries(s) {
			t.remove(key(v), v)
		}
	}
	for _, s := range after {
		vs := entries(s)
		for i := range vs {
			t.add(key(vs[i]), &vs[i])
		}
	}
	for k, c := range changes {
		c.after = t.latest(k)
		if c.before == c.after || c.before != nil && c.after != nil && *c.before == *c.after {
			delete(changes, k)
		} else {
			changes[k] = c
		}
	}
	return changes
}
