package daemon

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/coreos/flannel/subnet"
)

// peers is the set of peers that the data plane knows. It is safe for concurrent use.
type peers struct {
	observer *observer

	mu      sync.Mutex // guards what follows
	known   map[netip.Prefix]*subnet.Lease
	version uint64 // counts the calls of apply
}

func newPeers(o *observer) *peers {
	return &peers{observer: o, known: make(map[netip.Prefix]*subnet.Lease)}
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

// subnets returns the peers' subnets in order.
func (p *peers) subnets() []netip.Prefix {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Keys(p.known), netip.Prefix.Compare)
}

// leases returns the peers' leases in order.
func (p *peers) leases() []*subnet.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.SortedFunc(maps.Values(p.known), func(a, b *subnet.Lease) int { return a.Subnet.Compare(b.Subnet) })
}
