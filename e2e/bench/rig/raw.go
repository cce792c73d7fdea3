package rig

import (
	"context"
	"net/netip"
)

// openRaw adds only the routes to the simulated peers, so that the kernel's route
// lookup costs the same as with the other subjects.
func openRaw(_ context.Context, p *Pair) (transport, error) {
	for i, h := range p.hosts {
		addRoutes(h, peersOf(i, p.routes)[1:])
	}
	return static{publicIP(0), publicIP(1)}, nil
}

// static is a transport without a program, which is always up. The load binds to
// these addresses.
type static [2]netip.Addr

func (s static) up(context.Context) ([2]netip.Addr, error) { return s, nil }

func (static) down() error { return nil }
