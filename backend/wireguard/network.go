package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// network is the data plane of one end for one lease.
type network struct {
	end     end
	options options
	mtu     int
	lock    io.Closer // on the device's name
	parts   []*part   // one for each family that the device carries
	// handshakesDue is set while handshakes holds batches.
	handshakesDue reconcile.Signal

	mu               sync.Mutex // guards what follows, and the tunnel's configuration
	key              wgtypes.Key
	up               bool // the tunnel is desired, not only the prohibit routes
	tunnel           tunnel
	dataPath, reason string
	peers            map[netip.Prefix]*peer
	replaced         map[wgtypes.Key]wgtypes.Key // old key of a peer → new key; see dropOldKeys
	handshakes       []batch
	applied          bool // the first set of peers was applied
}

// part is what a device has for one family.
type part struct {
	network, address netip.Prefix
	// reconciler calls prepare before each of its passes.
	reconciler *rtnl.Reconciler
}

// open sets the prohibit routes, which apply while there is no other to a
// network. Then it makes the tunnel and the routes into it. It fails if no family has
// its routes; Run tries again with those that have not. The routes into a device that is
// there stay meanwhile.
func (n *network) open() error {
	there, err := n.deviceIsUp()
	if err != nil {
		return err
	}
	for _, p := range n.parts {
		routes := []rtnl.Route{p.prohibit()}
		if there {
			routes = append(routes, n.into(p))
		}
		if err := p.route(routes...); err != nil {
			return err
		}
	}
	n.mu.Lock()
	n.up = true
	n.mu.Unlock()
	var errs []error
	for _, p := range n.parts {
		errs = append(errs, p.route(p.prohibit(), n.into(p)))
	}
	return backend.AllFailed(errs)
}

// deviceIsUp reports whether the tunnel's device is there and up: that of the network
// before, or, in the kernel, that of an earlier run.
func (n *network) deviceIsUp() (bool, error) {
	link, err := rtnl.FindLink(n.links(), n.end.device)
	if link == nil {
		return false, err
	}
	return slices.Contains(deviceTypes, link.Type()) && link.Attrs().Flags&net.FlagUp != 0, nil
}

// links is the netlink socket of any part.
func (n *network) links() *netlink.Handle { return n.parts[0].reconciler.Links }

// into is the route of a family into the tunnel.
func (n *network) into(p *part) rtnl.Route {
	return rtnl.Route{Dst: p.network, Dev: n.end.device, Kind: rtnl.Link}
}

func (p *part) prohibit() rtnl.Route {
	return rtnl.Route{Dst: p.network, Kind: rtnl.Prohibit, Metric: math.MaxUint32}
}

func (p *part) route(routes ...rtnl.Route) error {
	return p.reconciler.Reset(map[netip.Prefix]rtnl.State{p.network: {Routes: routes}})
}

// wake makes a pass for each family.
func (n *network) wake() {
	for _, p := range n.parts {
		p.reconciler.Wake()
	}
}

// MTU implements backend.Network.
func (n *network) MTU() int { return n.mtu }

// Apply implements backend.Network.
func (n *network) Apply(events []subnet.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := desiredPeers(n.peers, n.options)
	for _, e := range events {
		old := n.peers[e.Subnet()]
		delete(n.peers, e.Subnet())
		if e.Type == subnet.Removed {
			continue
		}
		p := parsePeer(e, n.end, n.key.PublicKey())
		if p.problem != nil {
			ratelog.Errorf("skip peer subnet=%v public_ip=%v reason=%q", p.subnet, p.publicIP, p.problem)
		}
		n.peers[p.subnet] = p
		if old != nil && old.key != p.key && p.problem == nil {
			n.replaced[old.key] = p.key
			n.enqueue(0, p.key)
		}
	}
	if err := n.apply(before); err != nil {
		ratelog.Errorf("set peers: %v", err)
		n.wake() // prepare repairs it
	}
}

// apply changes the tunnel's peers from before to the desired ones. The first
// call compares with what the tunnel has.
func (n *network) apply(before map[wgtypes.Key]peerConfig) error {
	if n.tunnel == nil {
		return fmt.Errorf("device %s has no tunnel", n.end.device)
	}
	if !n.applied {
		n.applied = true
		n.handshakeAll()
		return n.reconcile(true)
	}
	after := desiredPeers(n.peers, n.options)
	return n.configure(append(n.addKeys(before, after), n.retainOldKeys(diffPeers(before, after), before)...))
}

// reconcile makes the tunnel's peers the desired ones. WireGuard answers a peer
// at the address that its packets come from (roaming, section 2.1 of the paper),
// so only the first call compares endpoints.
func (n *network) reconcile(first bool) error {
	differing, err := n.differing(first)
	if err != nil {
		return err
	}
	return n.configure(differing)
}

// differing returns the changes that make the tunnel's peers the desired ones.
func (n *network) differing(first bool) ([]wgtypes.PeerConfig, error) {
	peers, err := n.tunnel.peers()
	if err != nil {
		return nil, fmt.Errorf("list peers of %s: %w", n.end.device, err)
	}
	have, want := decodeConfigs(peers), desiredPeers(n.peers, n.options)
	for key, c := range have {
		if w, known := want[key]; known && !first {
			c.endpoint = w.endpoint
			have[key] = c
		}
	}
	return n.retainOldKeys(diffPeers(have, want), have), nil
}

func (n *network) configure(peers []wgtypes.PeerConfig) error {
	if len(peers) == 0 {
		return nil
	}
	if err := n.tunnel.configure(wgtypes.Config{Peers: peers}); err != nil {
		return fmt.Errorf("configure %s: %w", n.end.device, err)
	}
	return nil
}

// prepare makes device, tunnel and peers as they should be for a family.
func (n *network) prepare(p *part) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return nil
	}
	links := p.reconciler.Links
	link, err := rtnl.FindLink(links, n.end.device)
	if err != nil {
		return err
	}
	if n.tunnel != nil && link == nil {
		ratelog.Warningf("recreate tunnel device=%s reason=%q", n.end.device, "it was deleted")
		if err := n.closeTunnel(); err != nil {
			ratelog.Warningf("close tunnel: %v", err)
		}
	}
	if n.tunnel == nil {
		if err := n.makeTunnel(links); err != nil {
			return err
		}
		n.handshakeAll()
		if link, err = links.LinkByName(n.end.device); err != nil {
			return fmt.Errorf("look up device %s: %w", n.end.device, err)
		}
	}
	if err := p.reconciler.EnsureUp(link, p.address, n.mtu); err != nil {
		return n.end.explainPort(err)
	}
	if !n.applied {
		return nil // peers of an earlier run stay until the first Apply
	}
	return n.reconcile(false)
}

func (n *network) makeTunnel(links *netlink.Handle) (err error) {
	n.tunnel, n.dataPath, n.reason, err = openTunnel(links, n.end, n.options.dataPath, n.mtu)
	if err != nil {
		n.tunnel = nil
		return err
	}
	port := n.end.port
	if err := n.tunnel.configure(wgtypes.Config{PrivateKey: &n.key, ListenPort: &port}); err != nil {
		return errors.Join(n.end.explainPort(fmt.Errorf("set key and port %d of %s: %w", port, n.end.device, err)), n.closeTunnel())
	}
	log.Infof("made tunnel device=%s datapath=%s reason=%q port=%d public_key=%v mtu=%d", n.end.device, n.dataPath, n.reason, port, n.key.PublicKey(), n.mtu)
	return nil
}

func (n *network) closeTunnel() error {
	if n.tunnel == nil {
		return nil
	}
	err := n.tunnel.Close()
	n.tunnel = nil
	return err
}

// Run implements backend.Network.
func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s device=%s mtu=%d", Type, n.end.device, n.mtu)
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range n.parts {
		g.Go(func() error { return p.reconciler.Run(ctx) })
	}
	g.Go(func() error { return n.runHandshakes(ctx) })
	return g.Wait()
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dataPath
}

// Encapsulation implements backend.Network.
func (n *network) Encapsulation() backend.Encapsulation {
	switch n.DataPath() {
	case kernel:
		return backend.SinglyByKernel
	case userspace:
		return backend.JoinedByProcess
	}
	return backend.Unencapsulated // it is not up yet
}

// Stats implements backend.Network.
func (n *network) Stats() backend.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	reason := n.reason
	if u, ok := n.tunnel.(*userspaceTunnel); ok {
		if off := u.bind.losses(); off != nil {
			reason += "; off: " + strings.Join(off, ", ")
		}
	}
	return backend.Stats{
		DataPath: n.dataPath, Reason: reason,
		Peers: backend.UncountedPeers(n.peers, func(_ netip.Prefix, p *peer) (netip.Addr, error) { return p.publicIP, p.problem }),
	}
}

// Check implements backend.Checker.
func (n *network) Check() error {
	var errs []error
	for _, p := range n.parts {
		errs = append(errs, rtnl.CheckUp(p.reconciler.Links, n.end.device, p.address, n.mtu), p.reconciler.Check())
	}
	return errors.Join(append(errs, n.checkPeers())...)
}

func (n *network) checkPeers() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tunnel == nil {
		return fmt.Errorf("device %s has no tunnel", n.end.device)
	}
	if !n.applied {
		return nil
	}
	wrong, err := n.differing(false)
	if err == nil && len(wrong) > 0 {
		err = fmt.Errorf("%d peers of %s differ from their leases, such as %v", len(wrong), n.end.device, wrong[0].PublicKey)
	}
	return err
}

// Close implements backend.Network. The kernel's tunnel stays; one in user space
// ends. The prohibit route stays in either case.
func (n *network) Close() error {
	var errs []error
	for _, p := range n.parts {
		errs = append(errs, p.reconciler.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	errs = append(errs, n.closeTunnel())
	return errors.Join(append(errs, n.lock.Close())...)
}
