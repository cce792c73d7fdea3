package fastpath

import (
	"maps"
	"net/netip"
	"slices"
)

// A rule may tell two containers apart that have one address after another, or two
// bridges that a container is at. So the flows of an address lose their marks when it
// has moved, and rules judge them again.

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

// except returns the containers without these addresses, and without others of the
// same stations, which packets to these addresses would be sent to.
func except(containers []Container, addrs map[netip.Addr]bool) []Container {
	stations := make(map[fastpathStation]bool)
	for _, c := range containers {
		if addrs[c.Addr] {
			stations[c.station()] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(containers), func(c Container) bool { return stations[c.station()] })
}

// move has rules judge the flows of these addresses again. Meanwhile their packets take
// the long way.
func (p *Path) move(addrs map[netip.Addr]bool, s service) error {
	if len(addrs) == 0 {
		return nil
	}
	s.containers = except(s.containers, addrs)
	if err := p.programs.set(s); err != nil {
		return err
	}
	return unmarkAll(p.config.Marks, func(a netip.Addr) bool { return addrs[a] })
}
