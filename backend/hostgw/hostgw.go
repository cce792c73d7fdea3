// Package hostgw is the backend without encapsulation: each host is the gateway
// to its subnet, for hosts that share a link.
//
//	container → bridge → route 10.5.3.0/24       via 192.0.2.3   ─► uplink ─► host 192.0.2.3
//	                     route fd00:5:0:3::/64   via 2001:db8::3
//
// Each family has routes of its own. There is no device and no lease data. The kernel
// carries the packets, also while the daemon does not run. Those of IPv4 may take the
// fast path (package fastpath).
package hostgw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "host-gw"

// dataPath is the data path's name in the status.
const dataPath = "routes"

// New checks that the public addresses are the uplinks' own, and in no VRF. There are
// no options.
func New(c backend.Config) (backend.Backend, error) {
	for _, f := range c.Inside() {
		s := c.Of(f)
		if s.PublicIP != s.Uplink.Addr {
			return nil, fmt.Errorf("public IP %v is not the address %v of interface %s: host-gw cannot work behind NAT, since the other hosts route to it directly; use vxlan", s.PublicIP, s.Uplink.Addr, s.Uplink.Name)
		}
		if s.Uplink.VRF != "" {
			return nil, fmt.Errorf("interface %s belongs to VRF %s: the kernel routes what arrives there by the VRF's table, which has no containers; host-gw cannot work so; use vxlan", s.Uplink.Name, s.Uplink.VRF)
		}
	}
	return &gateway{c}, nil
}

// Remove deletes the routes into network that an earlier run left, and its fast path.
func Remove(_ context.Context, network netip.Prefix) error {
	return errors.Join(rtnl.RemoveRoutes(network, rtnl.Gateway), fastpath.RemoveDirect(network))
}

// gateway is the backend before it has a lease.
type gateway struct{ config backend.Config }

// Attrs implements backend.Backend.
func (g *gateway) Attrs() subnet.Attrs {
	a := subnet.Attrs{BackendType: Type}
	for _, f := range g.config.Inside() {
		a.SetFamily(f, g.config.Of(f).PublicIP, nil)
	}
	return a
}

// Up implements backend.Backend.
func (g *gateway) Up(_ context.Context, l subnet.Lease) (backend.Network, error) {
	parts := make(map[inet.Family]backend.Network)
	for _, f := range g.config.Inside() {
		n, err := g.open(f, l)
		if err != nil {
			for _, p := range parts {
				err = errors.Join(err, p.Close())
			}
			return nil, err
		}
		parts[f] = n
	}
	return backend.Join(parts), nil
}

func (g *gateway) open(f inet.Family, l subnet.Lease) (*network, error) {
	if err := g.config.CheckUnderlay("subnet", l.SubnetOf(f)); err != nil {
		return nil, err
	}
	s := g.config.Of(f)
	reconciler, err := rtnl.New(rtnl.Config{Network: s.Network, Uplink: s.Uplink.Name, Passed: g.config.Reconciled})
	if err != nil {
		return nil, err
	}
	n := &network{family: f, uplink: s.Uplink, reconciler: reconciler}
	if f == inet.IPv4 {
		n.fast = fastpath.OpenDirect(g.config.FastPath, s.Network, l.Subnet, g.config.FastPathMark)
	}
	return n, nil
}

// network is the backend at work for one family of one lease.
type network struct {
	family     inet.Family
	uplink     uplink.Uplink
	reconciler *rtnl.Reconciler
	fast       *fastpath.Optional // nil for IPv6

	mu    sync.Mutex            // guards peers
	peers map[netip.Prefix]peer // nil before the first Apply
}

// peer is the host that a subnet's packets go to.
type peer struct {
	host  netip.Addr
	fault error // for which there is no route
}

// MTU implements backend.Network.
func (n *network) MTU() int { return n.uplink.MTU }

// Apply implements backend.Network. The first events have all peers.
func (n *network) Apply(events []subnet.Event) {
	changes, first := n.update(events)
	if !first {
		n.reconciler.Update(changes)
	} else if err := n.reconciler.Reset(changes); err != nil {
		ratelog.Errorf("set routes: %v", err) // Run tries again
	}
}

// update changes the set of peers, and returns the changes for the kernel.
func (n *network) update(events []subnet.Event) (changes map[netip.Prefix]rtnl.State, first bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if first = n.peers == nil; first {
		n.peers = make(map[netip.Prefix]peer, len(events))
	}
	changes = make(map[netip.Prefix]rtnl.State, len(events))
	for _, e := range events {
		dst := e.Subnet()
		if e.Type == subnet.Removed {
			delete(n.peers, dst)
			changes[dst] = rtnl.State{}
			continue
		}
		host, fault := backend.PeerAddr(e.Lease, n.family)
		n.peers[dst] = peer{host, fault}
		if fault != nil {
			ratelog.Errorf("skip peer subnet=%v reason=%q", dst, fault)
			changes[dst] = rtnl.State{}
			continue
		}
		changes[dst] = rtnl.State{Routes: []rtnl.Route{{Dst: dst, Via: host, Dev: n.uplink.Name}}}
	}
	return changes, first
}

// Run implements backend.Network.
func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s family=%v iface=%s mtu=%d", Type, n.family, n.uplink.Name, n.MTU())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.reconciler.Run(ctx) })
	if n.fast != nil {
		g.Go(func() error { n.fast.Run(ctx); return nil })
	}
	return g.Wait()
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return dataPath
}

// Encapsulation implements backend.Network.
func (*network) Encapsulation() backend.Encapsulation { return backend.Unencapsulated }

// Stats implements backend.Network.
func (n *network) Stats() backend.Stats {
	refused := n.reconciler.Refusals()
	n.mu.Lock()
	defer n.mu.Unlock()
	s := backend.Stats{
		DataPath: dataPath, Reason: "the kernel routes by " + n.uplink.Name,
		Peers: backend.UncountedPeers(n.peers, func(dst netip.Prefix, p peer) (netip.Addr, error) {
			return p.host, cmp.Or(p.fault, problem(refused[dst]))
		}),
	}
	if n.fast != nil {
		s.FastPath = n.fast.Stats()
	}
	return s
}

// Check implements backend.Checker.
func (n *network) Check() error { return n.reconciler.Check() }

// problem returns the reason of a refusal with its remedy; nil for nil.
func problem(r *rtnl.Refusal) error {
	switch {
	case r == nil:
		return nil
	case errors.Is(r, rtnl.ErrNotOnLink):
		return fmt.Errorf("%v is not on the link of %s; host-gw needs that, vxlan with DirectRouting does not", r.Route.Via, r.Route.Dev)
	}
	return r.Err
}

// Close implements backend.Network. The routes stay in the kernel, and for some time the
// fast path.
func (n *network) Close() error {
	err := n.reconciler.Close()
	if n.fast != nil {
		err = errors.Join(err, n.fast.Close())
	}
	return err
}
