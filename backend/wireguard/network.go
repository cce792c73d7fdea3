package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// network is the backend at work for one lease.
type network struct {
	config  backend.Config
	options options
	mtu     int
	address netip.Prefix // of the device
	claim   io.Closer
	links   *netlink.Handle
	keeper  *rtnl.Keeper
	greeter *greeter

	mu               sync.Mutex // guards what follows, and the tunnel's configuration
	key              wgtypes.Key
	wanted           bool // the tunnel: false while only the prohibit route is
	tunnel           tunnel
	datapath, reason string
	peers            map[netip.Prefix]*peer
	retiring         map[wgtypes.Key]wgtypes.Key // keys that peers have replaced, by what; removed a little later
	synced           bool                        // the first set of peers was applied
}

var _ backend.Rekeyer = (*network)(nil)

// failClosed sets the prohibit route.
func (n *network) failClosed() error {
	n.keeper.Set(map[netip.Prefix]rtnl.State{n.config.Network: {Routes: []rtnl.Route{n.prohibit()}}})
	return n.keeper.Sync()
}

// openUp makes the tunnel and the route into it.
func (n *network) openUp() error {
	n.mu.Lock()
	n.wanted = true
	n.mu.Unlock()
	n.keeper.Set(map[netip.Prefix]rtnl.State{n.config.Network: {Routes: []rtnl.Route{
		n.prohibit(), {Dst: n.config.Network, Dev: deviceName, Kind: rtnl.Link},
	}}})
	return n.keeper.Sync()
}

// prohibit is below every other route to the network.
func (n *network) prohibit() rtnl.Route {
	return rtnl.Route{Dst: n.config.Network, Kind: rtnl.Prohibit, Metric: math.MaxUint32}
}

func (n *network) MTU() int { return n.mtu }

func (n *network) Apply(events []subnet.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := desired(n.peers, n.options)
	var fresh []wgtypes.Key
	for _, e := range events {
		old := n.peers[e.Lease.Subnet]
		delete(n.peers, e.Lease.Subnet)
		if e.Type == subnet.Removed {
			continue
		}
		p := read(*e.Lease, n.key.PublicKey())
		if p.fault != nil {
			ratelog.Errorf("skip peer subnet=%v public_ip=%v reason=%q", p.subnet, p.publicIP, p.fault)
		}
		n.peers[p.subnet] = p
		if old != nil && old.key != p.key && p.fault == nil {
			fresh = append(fresh, p.key)
			n.retiring[old.key] = p.key
			n.greeter.note(0, p.key)
		}
	}
	if err := errors.Join(n.introduce(fresh), n.apply(before)); err != nil {
		ratelog.Errorf("set peers: %v", err)
		n.keeper.Wake() // prepare makes it good
	}
}

// introduce tells the tunnel of keys, without a subnet. wireguard-go drops
// packets to a key that it is still being told of; so it gets the subnet, which
// takes it from the key before, in a second step.
func (n *network) introduce(keys []wgtypes.Key) error {
	if len(keys) == 0 || n.tunnel == nil || !n.synced {
		return nil // as a rule; or apply says so; or no packet flows yet
	}
	want := desired(n.peers, n.options)
	var peers []wgtypes.PeerConfig
	for _, key := range keys {
		if c, ok := want[key]; ok {
			peers = append(peers, c.config(key, nil))
		}
	}
	return n.configure(peers)
}

// apply brings the tunnel from what was desired before to what is; at first,
// from whatever it has.
func (n *network) apply(before map[wgtypes.Key]claim) error {
	if n.tunnel == nil {
		return errors.New("there is no tunnel")
	}
	if !n.synced {
		n.synced = true
		n.greetAll()
		return n.reconcile(true)
	}
	return n.configure(n.changes(before, desired(n.peers, n.options)))
}

// reconcile makes the tunnel's peers those that are desired. A peer whose
// packets come from elsewhere is answered there (roaming, section 2.1 of the
// paper), so endpoints are compared at first only.
func (n *network) reconcile(first bool) error {
	differing, err := n.differing(first)
	if err != nil {
		return err
	}
	return n.configure(differing)
}

// differing is what makes the tunnel's peers those that are desired.
func (n *network) differing(first bool) ([]wgtypes.PeerConfig, error) {
	peers, err := n.tunnel.peers()
	if err != nil {
		return nil, fmt.Errorf("list peers of %s: %w", deviceName, err)
	}
	have, want := present(peers), desired(n.peers, n.options)
	for key, c := range have {
		if w, known := want[key]; known && !first {
			c.endpoint = w.endpoint
			have[key] = c
		}
	}
	return n.changes(have, want), nil
}

// changes only takes the subnets from keys that are to be removed later.
func (n *network) changes(before, after map[wgtypes.Key]claim) (peers []wgtypes.PeerConfig) {
	for _, p := range changes(before, after) {
		if _, later := n.retiring[p.PublicKey]; later && p.Remove {
			if len(before[p.PublicKey].allowed) == 0 {
				continue
			}
			p = wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, ReplaceAllowedIPs: true}
		}
		peers = append(peers, p)
	}
	return peers
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

// prepare is called before each pass.
func (n *network) prepare() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.wanted {
		return nil
	}
	exists, err := rtnl.LinkExists(n.links, deviceName)
	if err != nil {
		return err
	}
	if n.tunnel != nil && !exists {
		ratelog.Warningf("make the tunnel anew device=%s reason=%q", deviceName, "it was deleted")
		if err := n.closeTunnel(); err != nil {
			ratelog.Warningf("close tunnel: %v", err)
		}
	}
	if n.tunnel == nil {
		if err := n.makeTunnel(); err != nil {
			return err
		}
		n.greetAll()
	}
	link, err := n.links.LinkByName(deviceName)
	if err != nil {
		return fmt.Errorf("look up device %s: %w", deviceName, err)
	}
	if err := rtnl.EnsureUp(n.links, link, n.address, n.mtu); err != nil {
		return err
	}
	if !n.synced {
		return nil // peers of an earlier run stay until we know better
	}
	return n.reconcile(false)
}

func (n *network) makeTunnel() (err error) {
	n.tunnel, n.datapath, n.reason, err = openTunnel(n.links, n.options.Datapath, n.mtu)
	if err != nil {
		n.tunnel = nil
		return err
	}
	port := n.options.ListenPort
	if err := n.tunnel.configure(wgtypes.Config{PrivateKey: &n.key, ListenPort: &port}); err != nil {
		return errors.Join(fmt.Errorf("set key and port %d of %s: %w", port, deviceName, err), n.closeTunnel())
	}
	log.Infof("made tunnel device=%s datapath=%s reason=%q port=%d public_key=%v mtu=%d", deviceName, n.datapath, n.reason, port, n.key.PublicKey(), n.mtu)
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

// Rekey replaces the private key by a new one and returns the attributes to
// publish. Packets under way still arrive; those that follow wait in the tunnel
// until the peers have read the new public key and begun a session, as many as
// WireGuard's queue takes (128 or 1024 for each peer). Our own beginnings go out
// before that, in vain: after them WireGuard makes no other for five seconds,
// that could meet the peer's.
func (n *network) Rekey() (subnet.Attrs, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key, err := makeKey(n.config.RunDir)
	if err != nil {
		return subnet.Attrs{}, err
	}
	if n.tunnel != nil {
		if err := n.tunnel.configure(wgtypes.Config{PrivateKey: &key}); err != nil {
			// The lease tells the old one until the next start, which reads the new.
			return subnet.Attrs{}, fmt.Errorf("set key of %s: %w", deviceName, err)
		}
	}
	n.key = key
	recent := func(p wgtypes.Peer) bool { return time.Since(p.LastHandshakeTime) < inUse }
	if _, err := n.beginWhere(recent, false); err != nil {
		ratelog.Warningf("begin sessions with peers: %v", err)
	}
	log.Infof("replaced key device=%s public_key=%v", deviceName, key.PublicKey())
	return attrs(n.config, n.options, key), nil
}

func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets backend=%s device=%s mtu=%d", Type, deviceName, n.mtu)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.keeper.Run(ctx) })
	g.Go(func() error { return n.greet(ctx) })
	return g.Wait()
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.datapath
}

func (n *network) Stats() backend.Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := backend.Stats{DataPath: n.datapath, Reason: n.reason}
	for _, dst := range slices.SortedFunc(maps.Keys(n.peers), netip.Prefix.Compare) {
		p := n.peers[dst]
		stats := backend.PeerStats{Subnet: dst, PublicIP: p.publicIP, Uncounted: true}
		if p.fault != nil {
			stats.Problem = p.fault.Error()
		}
		s.Peers = append(s.Peers, stats)
	}
	return s
}

// Close leaves the kernel's tunnel to the kernel; one in user space ends. The
// prohibit route stays in either case.
func (n *network) Close() error {
	return errors.Join(n.keeper.Close(), tunnelOf{n}.Close(), handle{n.links}.Close(), n.claim.Close())
}

// tunnelOf closes a network's tunnel.
type tunnelOf struct{ n *network }

func (t tunnelOf) Close() error {
	t.n.mu.Lock()
	defer t.n.mu.Unlock()
	return t.n.closeTunnel()
}

// handle is a netlink handle as a closer.
type handle struct{ *netlink.Handle }

func (h handle) Close() error {
	h.Handle.Close()
	return nil
}
