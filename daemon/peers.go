package daemon

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// peers is the set of peers that the data plane knows, by the subnets of both
// families. It is safe for concurrent use.
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

// leases returns the peers' leases, each once, in order of their keys.
func (p *peers) leases() []*subnet.Lease {
	p.mu.Lock()
	defer p.mu.Unlock()
	byKey := make(map[string]*subnet.Lease, len(p.known))
	for _, l := range p.known {
		byKey[l.Key()] = l
	}
	return slices.SortedFunc(maps.Values(byKey), func(a, b *subnet.Lease) int { return strings.Compare(a.Key(), b.Key()) })
}
