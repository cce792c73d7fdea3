// Package wireguard is the backend that encrypts: packets between hosts travel
// through WireGuard tunnels (https://www.wireguard.com/papers/wireguard.pdf).
//
//	container → bridge → route Network dev flannel-wg ─► WireGuard ─► UDP :51820
//	                     route Network prohibit (without the former)
//
// IPv6 has a device of its own, flannel-wg-v6, with datagrams of IPv6. The other modes
// have one device for both families.
//
// Each host has a key of its own and publishes the public half in its lease. The
// peer's subnet is the key's AllowedIPs. The kernel's implementation is used where
// there is one, else wireguard-go inside this process.
//
// The backend fails closed. The prohibit route is set before the tunnel exists and
// stays after the daemon has ended. A packet that finds no tunnel gets an ICMP
// error and never leaves in clear text. Only the start of another backend removes
// the route.
//
// A rekey loses no packet once the peer knows the new key. The keys of a peer pass
// through these states:
//
//	absent ──► added ──────► current ─────► old ────────► removed
//	           (no subnet)   (subnet)       (no subnet)
//
//	added    a lease names the key; a handshake with it begins at once (addKeys)
//	current  the subnet moves to the key in one step (diffPeers)
//	old      the lease names a newer key; packets queued for this key still leave
//	removed  the handshake with the newer key succeeded or was given up (dropOldKeys),
//	         or the lease ended
package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "wireguard"

// deviceTypes are the device's in the kernel and in user space.
var deviceTypes = []string{"wireguard", "tuntap"}

// leaseData is the lease's BackendData, or BackendV6Data.
type leaseData struct {
	PublicKey string
	Port      int
}

// New checks the options and reads the private key. It makes the key if there is
// none.
func New(c backend.Config) (backend.Backend, error) {
	o, err := parseOptions(c)
	if err != nil {
		return nil, err
	}
	ends, err := chooseEnds(c, o)
	if err != nil {
		return nil, err
	}
	// One route leads all of Network into the tunnel.
	for _, f := range c.Inside() {
		if err := c.CheckUnderlay("Network", c.Of(f).Network); err != nil {
			return nil, err
		}
	}
	key, err := loadKey(c.RunDir)
	if err != nil {
		return nil, err
	}
	return &wgBackend{c, o, ends, key}, nil
}

// wgBackend is the backend before it has a lease.
type wgBackend struct {
	config  backend.Config
	options options
	ends    []end
	key     wgtypes.Key
}

// Attrs implements backend.Backend.
func (b *wgBackend) Attrs() subnet.Attrs { return attrs(b.ends, b.key) }

// Up implements backend.Backend. The prohibit routes stay in place even if Up
// fails. If the kernel refuses the device of one family only, Run tries again.
func (b *wgBackend) Up(_ context.Context, l subnet.Lease) (backend.Network, error) {
	return b.up(l, nil)
}

// up sets the network up with the tunnels in user space that the one before has left, by
// device.
func (b *wgBackend) up(l subnet.Lease, before map[string]*keptTunnel) (_ backend.Network, err error) {
	all := &tunnels{runDir: b.config.RunDir}
	defer func() {
		if err != nil {
			for _, n := range all.networks {
				err = errors.Join(err, n.Close())
			}
			for _, k := range before {
				err = errors.Join(err, k.Close())
			}
		}
	}()
	var errs []error
	for _, e := range b.ends {
		n, err := b.network(e, l)
		if n != nil {
			all.networks = append(all.networks, n)
		}
		if err != nil {
			return nil, err
		}
		if k := before[e.device]; k != nil {
			delete(before, e.device)
			if err := n.takeOver(k); err != nil {
				return nil, err
			}
		}
		errs = append(errs, n.open())
	}
	if err := backend.AllFailed(errs); err != nil {
		return nil, err
	}
	all.join()
	return all, nil
}

// network returns the network of one end, which is not open yet. With an error the
// caller closes the network, if there is one.
func (b *wgBackend) network(e end, l subnet.Lease) (*network, error) {
	lock, err := netdev.Lock(e.device)
	if err != nil {
		return nil, fmt.Errorf("%w: a host has one network with backend %s", err, Type)
	}
	n := &network{
		end: e, options: b.options, mtu: b.options.MTU - encapsulation,
		lock: lock, handshakesDue: reconcile.NewSignal(),
		key: b.key, peers: make(map[netip.Prefix]*peer), replaced: make(map[wgtypes.Key]wgtypes.Key),
	}
	for _, f := range e.inner {
		p := &part{network: b.config.Of(f).Network, address: netip.PrefixFrom(l.SubnetOf(f).Addr(), f.Bits())}
		p.reconciler, err = rtnl.New(rtnl.Config{
			Network: p.network, Device: e.device, DeviceTypes: deviceTypes, Uplink: e.uplink.Name,
			Prepare: func() error { return n.prepare(p) }, Passed: b.config.Reconciled,
		})
		if err != nil {
			return n, err
		}
		n.parts = append(n.parts, p)
	}
	return n, nil
}

// tunnels is the network of all ends.
type tunnels struct {
	backend.Network
	networks []*network
	runDir   string
}

// join makes one Network of all.
func (t *tunnels) join() {
	if len(t.networks) == 1 {
		t.Network = t.networks[0] // for both families, or the only one
		return
	}
	parts := make(map[inet.Family]backend.Network)
	for _, n := range t.networks {
		parts[n.end.inner[0]] = n
	}
	t.Network = backend.Join(parts)
}

// Remove deletes what an earlier run for network left: the kernel's devices,
// unless a running flannel uses them, and the prohibit route.
func Remove(_ context.Context, network netip.Prefix) error {
	return errors.Join(
		rtnl.RemoveDevices(network, Type, netdev.IsWireGuard),
		rtnl.RemoveRoutes(network, rtnl.Prohibit))
}
