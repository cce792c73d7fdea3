// Package wireguard is the backend that encrypts: packets between hosts travel
// through WireGuard tunnels (https://www.wireguard.com/papers/wireguard.pdf).
//
//	container → bridge → route Network dev flannel-wg ─► WireGuard ─► UDP :51820
//	                     route Network prohibit (without the former)
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
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "wireguard"

// deviceName is the same in every generation of flannel.
const deviceName = netdev.WireGuard

// deviceTypes are the device's in the kernel and in user space.
var deviceTypes = []string{"wireguard", "tuntap"}

// leaseData is the lease's BackendData.
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
	// One route leads all of Network into the tunnel.
	if err := c.CheckUnderlay("Network", c.Network); err != nil {
		return nil, err
	}
	key, err := loadKey(c.RunDir)
	if err != nil {
		return nil, err
	}
	return &wgBackend{c, o, key}, nil
}

// wgBackend is the backend before it has a lease.
type wgBackend struct {
	config  backend.Config
	options options
	key     wgtypes.Key
}

// Attrs implements backend.Backend.
func (b *wgBackend) Attrs() subnet.Attrs { return attrs(b.config, b.options, b.key) }

// attrs returns what peers need to know of the host with that private key. The
// data always encodes: it is a string and a number.
func attrs(c backend.Config, o options, key wgtypes.Key) subnet.Attrs {
	data, _ := json.Marshal(leaseData{key.PublicKey().String(), o.ListenPort})
	return subnet.Attrs{PublicIP: c.PublicIP, BackendType: Type, BackendData: data}
}

// Up implements backend.Backend. The prohibit route stays in place even if Up
// fails.
func (b *wgBackend) Up(_ context.Context, l subnet.Lease) (_ backend.Network, err error) {
	lock, err := netdev.Lock(deviceName)
	if err != nil {
		return nil, fmt.Errorf("%w: a host has one network with backend %s", err, Type)
	}
	n := &network{
		config: b.config, options: b.options, mtu: b.options.MTU - encapsulation,
		address: netip.PrefixFrom(l.Subnet.Addr(), l.Subnet.Addr().BitLen()),
		lock:    lock, handshakesDue: reconcile.NewSignal(),
		key: b.key, peers: make(map[netip.Prefix]*peer), replaced: make(map[wgtypes.Key]wgtypes.Key),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	n.reconciler, err = rtnl.New(rtnl.Config{Network: b.config.Network, Device: deviceName, DeviceTypes: deviceTypes, Uplink: b.config.Uplink.Name, Prepare: n.prepare, Passed: b.config.Reconciled})
	if err != nil {
		return nil, err
	}
	if err := n.open(); err != nil {
		return nil, err
	}
	return n, nil
}

// Remove deletes what an earlier run for network left: the kernel's device,
// unless a running flannel uses it, and the prohibit route.
func Remove(_ context.Context, network netip.Prefix) error {
	return errors.Join(
		rtnl.RemoveDevices(network, Type, func(name string) bool { return name == deviceName }),
		rtnl.RemoveRoutes(network, rtnl.Prohibit))
}
