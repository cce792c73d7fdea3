package rig

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

const (
	// linkName is the name of both ends of the link between the hosts.
	linkName = "link0"
	// linkMTU is the link's MTU in bytes.
	linkMTU = 1500
)

// segments are the networks of link0, by family. They have addresses for the simulated
// peers, since host-gw requires that all peers are on the link.
var segments = [...]netip.Prefix{
	inet.IPv4: netip.MustParsePrefix("172.20.0.0/16"),
	inet.IPv6: netip.MustParsePrefix("fd00:172:20::/64"),
}

// Pair is two hosts and a transport between them.
type Pair struct {
	rig       *Rig
	name      string
	setting   Setting
	hosts     [2]*netnstest.Host
	transport transport
	// byHand is true if no daemon runs on the hosts.
	byHand bool
	// envs and ends are those of the first Up.
	envs [2]subnetfile.Env
	ends [2]load.End
}

// Setting is the circumstances of a pair.
type Setting struct {
	Link Link
	// Routes is the number of peers that each host has a route to.
	Routes int
	Ends   EndKind
	Rules  RuleSet
	// Inside is the family of the load's packets. Packets between the hosts are of the
	// same family.
	Inside inet.Family
}

// families returns those of the hosts' addresses: IPv4 alone, or both for IPv6
// inside.
func (s Setting) families() []inet.Family { return inet.Families[:s.Inside+1] }

// subnet returns the load's subnet of a host.
func (s Setting) subnet(env subnetfile.Env) netip.Prefix {
	if s.Inside == inet.IPv4 {
		return env.Subnet
	}
	return env.IPv6Subnet
}

// transport is a subject on a pair of hosts.
type transport interface {
	// up starts the transport, and returns what subnet.env contains on each host. It
	// is the same each time.
	up(ctx context.Context) ([2]subnetfile.Env, error)
	// down stops what up has started. It does nothing if up was not called.
	down() error
}

// wire makes the hosts and the link.
func (r *Rig) wire(name string, s Setting) *Pair {
	r.scope.Helper()
	p := &Pair{rig: r, name: name, setting: s}
	for i, suffix := range []string{"-a", "-b"} {
		p.hosts[i] = r.lab.Host(name + suffix)
	}
	r.lab.Wire(p.hosts[0], linkName, p.hosts[1], linkName, linkMTU)
	for i, h := range p.hosts {
		for _, f := range s.families() {
			h.AddAddr(linkName, netip.PrefixFrom(publicIP(f, i), segments[f].Bits()))
		}
	}
	return p
}

// publicIP returns the address on the link of peer number n; 0 and 1 are real.
func publicIP(f inet.Family, n int) netip.Addr { return nth(segments[f].Addr(), n+1) }

// Up starts the transport and waits until packets pass in both directions. The
// first call makes the ends.
func (p *Pair) Up(ctx context.Context) (a, b load.End, err error) {
	envs, err := p.transport.up(ctx)
	if err == nil {
		err = p.attach(ctx, envs)
	}
	if err != nil {
		return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
	}
	a, b = p.ends[0], p.ends[1]
	for _, ends := range [][2]load.End{{a, b}, {b, a}} {
		if err := awaitPing(ctx, ends[0], ends[1]); err != nil {
			return load.End{}, load.End{}, fmt.Errorf("bring up %s: %w", p.name, err)
		}
	}
	return a, b, nil
}

// attach makes the bridges, the ends and the firewall rules on the first call.
func (p *Pair) attach(ctx context.Context, envs [2]subnetfile.Env) (err error) {
	if p.ends[0].Host != nil {
		if envs != p.envs {
			return fmt.Errorf("the hosts' subnets are %v, were %v", envs, p.envs)
		}
		return nil
	}
	for i, h := range p.hosts {
		h.Bridge(bridge, firstAddr(p.setting.subnet(envs[i])), envs[i].MTU)
	}
	if err := p.applyRules(ctx, envs); err != nil {
		return err
	}
	p.envs = envs
	p.ends, err = p.setting.Ends.attach(p, envs)
	return err
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
const pingTimeout = time.Minute

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
