package fastpath

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// An address can move from one container to another, or with its container to another
// bridge. A rule may judge the flow differently then. So the flows of an address lose
// their marks when it has moved, and rules judge them again.

// places are where addresses are, or were last. An address may be at several bridges.
type places map[netip.Addr][]Container

// moved returns the addresses that are where they were not before.
func (p places) moved(containers []Container) map[netip.Addr]bool {
	moved := make(map[netip.Addr]bool)
	for _, c := range containers {
		if former, known := p[c.Addr]; known && !slices.Contains(former, c.place()) {
			moved[c.Addr] = true // promise: moved-address-is-judged-again
		}
	}
	return moved
}

// note replaces the places of the containers' addresses.
func (p places) note(containers []Container) {
	now := make(places)
	for _, c := range containers {
		now[c.Addr] = append(now[c.Addr], c.place())
	}
	maps.Copy(p, now)
}

// place is c without what rules do not know a container by.
func (c Container) place() Container {
	c.Gateway = MAC{}
	return c
}

// except returns the containers without these addresses. It also leaves out others of the
// same stations: packets to these addresses would be sent there.
func except(containers []Container, addrs map[netip.Addr]bool) []Container {
	stations := make(map[fastpathStation]bool)
	for _, c := range containers {
		if addrs[c.Addr] {
			stations[c.station()] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(containers), func(c Container) bool { return stations[c.station()] })
}

// movesEvery and movesBurst bound the moves that are followed. Each costs a list of all
// flows, and a container can cause any number of them by ARP.
const (
	movesEvery = time.Second
	movesBurst = 10
)

// move has rules judge the flows of addresses that have moved again. Meanwhile their
// packets take the long way. If moves are too frequent, the packets do so until a later
// look: restless has these addresses.
func (p *Path) move(s service) (stay []Container, restless []string, err error) {
	addrs := p.places.moved(s.containers)
	if len(addrs) == 0 {
		return s.containers, nil, nil
	}
	all := s.containers
	s.containers = except(all, addrs)
	if !p.moves.Allow() {
		for a := range addrs {
			restless = append(restless, fmt.Sprintf("address %v moves between containers", a))
		}
		return s.containers, restless, nil
	}
	if err := p.programs.set(s); err != nil {
		return nil, nil, err
	}
	return all, nil, unmarkAll(p.config.Marks, func(a netip.Addr) bool { return addrs[a] })
}
