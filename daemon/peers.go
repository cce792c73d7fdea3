package daemon

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/subnet"
)

// peers is the set of peers that the data plane knows, by the subnets of both
// families. It is safe for concurrent use.
type peers struct {
	observer *observer
	changed  reconcile.Signal // set by apply

	mu      sync.Mutex // guards what follows
	known   map[netip.Prefix]*subnet.Lease
	version uint64 // counts the calls of apply
}

func newPeers(o *observer) *peers {
	return &peers{observer: o, changed: reconcile.NewSignal(), known: make(map[netip.Prefix]*subnet.Lease)}
}

// apply changes the set as Network.Apply does.
func (p *peers) apply(events []subnet.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		_, known := p.known[e.Subnet()]
		if e.Type == subnet.Added {
			p.known[e.Subnet()] = e.Lease
			if !known {
				p.observer.peerJoined(e.Subnet())
			}
		} else if known {
			delete(p.known, e.Subnet())
			p.observer.peerLeft(e.Subnet())
		}
	}
	p.version++
	p.changed.Set() // promise: peers-are-saved-at-once
}

// currentVersion differs from an earlier one if apply was called since.
func (p *peers) currentVersion() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.version
}

func (p *peers) has(peer netip.Prefix) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[peer] != nil
}

// subnets returns the peers' subnets of a family in order.
func (p *peers) subnets(f inet.Family) []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]netip.Prefix, 0, len(p.known))
	for subnet := range p.known {
		if inet.Of(subnet.Addr()) == f {
			all = append(all, subnet)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return all
}

// leases returns the peers' leases, each once, in order of their subnets. A lease one
// part of which another lease has now is returned with the other part alone.
func (p *peers) leases() []*subnet.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*subnet.Lease, 0, len(p.known))
	for known, l := range p.known {
		if slices.ContainsFunc(l.Parts(), func(part netip.Prefix) bool {
			other := p.known[part]
			return other != nil && other != l && other.Key() != l.Key()
		}) {
			l = new(l.Without(inet.Of(known.Addr()).Other()))
		}
		all = append(all, l)
	}
	order := func(a, b *subnet.Lease) int {
		return cmp.Or(a.Subnet.Compare(b.Subnet), a.IPv6Subnet.Compare(b.IPv6Subnet))
	}
	slices.SortFunc(all, order)
	return slices.CompactFunc(all, func(a, b *subnet.Lease) bool { return order(a, b) == 0 })
}

// listPeers returns a function that returns list of p's leases. The function calls
// list only after a change, and is safe for concurrent use.
func listPeers[T any](p *peers, list func([]*subnet.Lease) []T) func() []T {
	var mu sync.Mutex
	var listed []T
	never := true
	var version uint64
	return func() []T {
		mu.Lock()
		defer mu.Unlock()
		if v := p.currentVersion(); never || v != version {
			never, version = false, v
			listed = list(p.leases())
		}
		return listed
	}
}
