package rig

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/netnstest"
)

// linkName is the interface that the two hosts have in common.
const linkName = "link0"

// segment is the network of link0, so wide that it has room for the made-up
// peers: all are on the link, which host-gw demands.
var segment = netip.MustParsePrefix("172.20.0.0/16")

// Pair is two hosts and a way of carrying packets between them.
type Pair struct {
	rig    *Rig
	name   string
	routes int
	hosts  [2]*netnstest.Host
	way    way
}

// way is what a subject is on a pair of hosts.
type way interface {
	// up lets packets through, and says which address the load is bound to on
	// each host.
	up(ctx context.Context) ([2]netip.Addr, error)
	// down ends what up has started; without an up it does nothing.
	down() error
}

// wire makes the hosts and the link between them.
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

// publicIP is the address on the link of peer number n; 0 and 1 are real.
func publicIP(n int) netip.Addr { return nth(segment.Addr(), n+1) }

// Up lets packets through and waits until they pass both ways.
func (p *Pair) Up(ctx context.Context) (a, b load.End, err error) {
	addrs, err := p.way.up(ctx)
	if err != nil {
		return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
	}
	a, b = load.End{Host: p.hosts[0], Addr: addrs[0]}, load.End{Host: p.hosts[1], Addr: addrs[1]}
	for _, way := range [][2]load.End{{a, b}, {b, a}} {
		if err := meet(ctx, way[0], way[1]); err != nil {
			return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
		}
	}
	return a, b, nil
}

// Down ends what Up has started.
func (p *Pair) Down() error {
	if err := p.way.down(); err != nil {
		return fmt.Errorf("take down %s: %w", p.name, err)
	}
	return nil
}

// meetLimit bounds the wait for the first packet: the host that started first
// learns of the other a moment later.
const meetLimit = 20 * time.Second

func meet(ctx context.Context, from, to load.End) error {
	ctx, cancel := context.WithTimeout(ctx, meetLimit)
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
