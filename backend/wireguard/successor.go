package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

var (
	_ backend.Keeper    = (*tunnels)(nil)
	_ backend.Successor = (*wgBackend)(nil)
)

// keptTunnel is a tunnel in user space between two networks. Its sessions stay. (The
// kernel's tunnel needs no such thing, and stays anyway.)
type keptTunnel struct {
	*userspaceTunnel
	end      end
	key      wgtypes.Key
	networks []netip.Prefix // that it serves
	reason   string         // for the choice of implementation
}

// keptTunnels are those of a network.
type keptTunnels []*keptTunnel

// Close ends the tunnels.
func (all keptTunnels) Close() error {
	var errs []error
	for _, k := range all {
		errs = append(errs, k.Close())
	}
	return errors.Join(errs...)
}

// Leave implements backend.Keeper.
func (t *tunnels) Leave() (io.Closer, error) {
	var all keptTunnels
	var errs []error
	for _, n := range t.networks {
		if k := n.leave(); k != nil {
			all = append(all, k)
		}
		errs = append(errs, n.Close())
	}
	if err := errors.Join(errs...); err != nil || all == nil {
		return nil, errors.Join(err, all.Close())
	}
	return all, nil
}

// leave takes the tunnel off the network; nil if it is not in user space.
func (n *network) leave() *keptTunnel {
	n.mu.Lock()
	defer n.mu.Unlock()
	u, ok := n.tunnel.(*userspaceTunnel)
	if !ok {
		return nil
	}
	k := &keptTunnel{userspaceTunnel: u, end: n.end, key: n.key, reason: n.reason}
	for _, p := range n.parts {
		k.networks = append(k.networks, p.network)
	}
	n.tunnel = nil
	return k
}

// UpWith implements backend.Successor.
func (b *wgBackend) UpWith(_ context.Context, l subnet.Lease, left io.Closer) (backend.Network, error) {
	all, ok := left.(keptTunnels)
	if !ok {
		all = nil
		if err := left.Close(); err != nil {
			return nil, err
		}
	}
	serves := make(map[string]*keptTunnel) // by device
	var errs []error
	for _, k := range all {
		if slices.ContainsFunc(b.ends, func(e end) bool { return k.serves(e, b.key) }) {
			serves[k.end.device] = k
		} else {
			errs = append(errs, k.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		for _, k := range serves {
			err = errors.Join(err, k.Close())
		}
		return nil, fmt.Errorf("close tunnel of the network before: %w", err)
	}
	return b.up(l, serves)
}

// serves reports whether the tunnel is as another network needs it at an end. Sockets in
// a VRF are bound to a device, which a device of that name may have replaced.
func (k *keptTunnel) serves(e end, key wgtypes.Key) bool {
	return k.key == key && k.end.device == e.device && k.end.port == e.port &&
		(k.end.uplink == e.uplink || k.end.uplink.VRF == "" && e.uplink.VRF == "")
}

// takeOver goes on with a tunnel, and removes the networks from its device that are no
// longer inside. The tunnel is the network's also if takeOver fails.
func (n *network) takeOver(k *keptTunnel) error {
	n.tunnel, n.dataPath, n.reason = k.userspaceTunnel, userspace, k.reason
	if !slices.Equal(k.end.outer, n.end.outer) {
		if err := k.setFamilies(n.end.outer); err != nil {
			return fmt.Errorf("change the sockets of %s: %w", n.end.device, err)
		}
	}
	link, err := rtnl.FindLink(n.links(), n.end.device)
	if link == nil {
		return err // nil: prepare makes another device
	}
	for _, former := range k.networks {
		if !slices.ContainsFunc(n.parts, func(p *part) bool { return p.network == former }) {
			if _, err := rtnl.Release(n.links(), link, former); err != nil {
				return err
			}
		}
	}
	return nil
}
