package rig

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/netnstest"
)

// linkName is the name of both ends of the link between the hosts.
const linkName = "link0"

// segment is the network of link0. It has addresses for the simulated peers, since
// host-gw requires that all peers are on the link.
var segment = netip.MustParsePrefix("172.20.0.0/16")

// Pair is two hosts and a transport between them.
type Pair struct {
	rig       *Rig
	name      string
	routes    int
	hosts     [2]*netnstest.Host
	transport transport
}

// transport is a subject on a pair of hosts.
type transport interface {
	// up starts the transport, and returns the address on each host that the load
	// binds to.
	up(ctx context.Context) ([2]netip.Addr, error)
	// down stops what up has started. It does nothing if up was not called.
	down() error
}

// wire makes the hosts and the link.
func (r *Rig) wire(name string, routes int) *Pair {
	r.scope.Helper()
	p := &Pair{rig: r, name: name, routes: routes}
	for i, suffix := range []string{"-a", "-b"} {
		p.hosts[i] = r.lab.Host(name + suffix)
	}
	r.lab.Wire(p.hosts[0], linkName, p.hosts[1], linkName, 0)
	for i, h := range p.hosts {
		h.AddAddr(linkName, netip.PrefixFrom(publicIP(i), segment.Bits()))
	}
	return p
}

// publicIP returns the address on the link of peer number n; 0 and 1 are real.
func publicIP(n int) netip.Addr { return nth(segment.Addr(), n+1) }

// Up starts the transport and waits until packets pass in both directions.
func (p *Pair) Up(ctx context.Context) (a, b load.End, err error) {
	addrs, err := p.transport.up(ctx)
	if err != nil {
		return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
	}
	a, b = load.End{Host: p.hosts[0], Addr: addrs[0]}, load.End{Host: p.hosts[1], Addr: addrs[1]}
	for _, ends := range [][2]load.End{{a, b}, {b, a}} {
		if err := awaitPing(ctx, ends[0], ends[1]); err != nil {
			return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
		}
	}
	return a, b, nil
}

// Down stops the transport.
func (p *Pair) Down() error {
	if err := p.transport.down(); err != nil {
		return fmt.Errorf("take down %s: %w", p.name, err)
	}
	return nil
}

// pingTimeout bounds the wait for the first packet: the first host to start needs a
// moment to see the other's lease.
const pingTimeout = 20 * time.Second

func awaitPing(ctx context.Context, from, to load.End) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		out, err := from.Command(ctx, "ping", "-n", "-q", "-c", "1", "-W", "1", "-I", from.Addr.String(), to.Addr.String()).CombinedOutput()
		if err == nil {
			return nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("ping from %s to %v: %w: %s", from.Name(), to.Addr, ctx.Err(), out)
		}
	}
}
