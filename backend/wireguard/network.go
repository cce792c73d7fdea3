package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"sync"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// network is the data plane of one lease.
type network struct {
	config  backend.Config
	options options
	mtu     int
	address netip.Prefix // of the device
	lock    io.Closer    // on the device's name
	// reconciler calls prepare before each of its passes.
	reconciler *rtnl.Reconciler
	// handshakesDue is set while handshakes holds batches.
	handshakesDue reconcile.Signal

	mu               sync.Mutex // guards what follows, and the tunnel's configuration
	key              wgtypes.Key
	up               bool // the tunnel is desired, not only the prohibit route
	tunnel           tunnel
	dataPath, reason string
	peers            map[netip.Prefix]*peer
	replaced         map[wgtypes.Key]wgtypes.Key // old key of a peer → new key; see dropOldKeys
	handshakes       []batch
	applied          bool // the first set of peers was applied
}

// open sets the prohibit route, which applies while there is no other to the
// network. Then it makes the tunnel and the route into it.
func (n *network) open() error {
	routes := []rtnl.Route{{Dst: n.config.Network, Kind: rtnl.Prohibit, Metric: math.MaxUint32}}
	if err := n.reconciler.Reset(map[netip.Prefix]rtnl.State{n.config.Network: {Routes: routes}}); err != nil {
		return err
	}
	n.mu.Lock()
	n.up = true
	n.mu.Unlock()
	routes = append(routes, rtnl.Route{Dst: n.config.Network, Dev: deviceName, Kind: rtnl.Link})
	return n.reconciler.Reset(map[netip.Prefix]rtnl.State{n.config.Network: {Routes: routes}})
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
		p := parsePeer(*e.Lease, n.key.PublicKey())
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
		n.reconciler.Wake() // prepare repairs it
	}
}

// apply changes the tunnel's peers from before to the desired ones. The first
// call compares with what the tunnel has.
func (n *network) apply(before map[wgtypes.Key]peerConfig) error {
	if n.tunnel == nil {
		return fmt.Errorf("device %s has no tunnel", deviceName)
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
		return nil, fmt.Errorf("list peers of %s: %w", deviceName, err)
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
		return fmt.Errorf("configure %s: %w", deviceName, err)
	}
	return nil
}

// prepare makes device, tunnel and peers as they should be.
func (n *network) prepare() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up {
		return nil
	}
	exists, err := rtnl.LinkExists(n.reconciler.Links, deviceName)
	if err != nil {
		return err
	}
	if n.tunnel != nil && !exists {
		ratelog.Warningf("recreate tunnel device=%s reason=%q", deviceName, "it was deleted")
		if err := n.closeTunnel(); err != nil {
			ratelog.Warningf("close tunnel: %v", err)
		}
	}
	if n.tunnel == nil {
		if err := n.makeTunnel(); err != nil {
			return err
		}
		n.handshakeAll()
	}
	link, err := n.reconciler.Links.LinkByName(deviceName)
	if err != nil {
		return fmt.Errorf("look up device %s: %w", deviceName, err)
	}
	if err := n.reconciler.EnsureUp(link, n.address, n.mtu); err != nil {
		return err
	}
	if !n.applied {
		return nil // peers of an earlier run stay until the first Apply
	}
	return n.reconcile(false)
}

func (n *network) makeTunnel() (err error) {
	n.tunnel, n.dataPath, n.reason, err = openTunnel(n.reconciler.Links, n.options.dataPath, n.config.Uplink, n.mtu)
	if err != nil {
		n.tunnel = nil
		return err
	}
	port := n.options.ListenPort
	if err := n.tunnel.configure(wgtypes.Config{PrivateKey: &n.key, ListenPort: &port}); err != nil {
		return errors.Join(fmt.Errorf("set key and port %d of %s: %w", port, deviceName, err), n.closeTunnel())
	}
	log.Infof("made tunnel device=%s datapath=%s reason=%q port=%d public_key=%v mtu=%d", deviceName, n.dataPath, n.reason, port, n.key.PublicKey(), n.mtu)
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
	log.Infof("carry packets backend=%s device=%s mtu=%d", Type, deviceName, n.mtu)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.reconciler.Run(ctx) })
	g.Go(func() error { return n.runHandshakes(ctx) })
	return g.Wait()
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dataPath
}

// Stats implements backend.Network.
func (n *network) Stats() backend.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return backend.Stats{
		DataPath: n.dataPath, Reason: n.reason,
		Peers: backend.UncountedPeers(n.peers, func(_ netip.Prefix, p *peer) (netip.Addr, error) { return p.publicIP, p.problem }),
	}
}

// Check implements backend.Checker.
func (n *network) Check() error {
	err := rtnl.CheckUp(n.reconciler.Links, deviceName, n.address, n.mtu)
	if err == nil {
		err = n.checkPeers()
	}
	return errors.Join(err, n.reconciler.Check())
}

func (n *network) checkPeers() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tunnel == nil {
		return fmt.Errorf("device %s has no tunnel", deviceName)
	}
	if !n.applied {
		return nil
	}
	wrong, err := n.differing(false)
	if err == nil && len(wrong) > 0 {
		err = fmt.Errorf("%d peers of %s differ from their leases, such as %v", len(wrong), deviceName, wrong[0].PublicKey)
	}
	return err
}

// Close implements backend.Network. The kernel's tunnel stays; one in user space
// ends. The prohibit route stays in either case.
func (n *network) Close() error {
	var errs []error
	if n.reconciler != nil {
		errs = append(errs, n.reconciler.Close())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	errs = append(errs, n.closeTunnel())
	return errors.Join(append(errs, n.lock.Close())...)
}
