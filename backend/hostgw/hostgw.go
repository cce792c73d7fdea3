// Package hostgw is the backend without encapsulation: each host is the gateway
// to its subnet, for hosts that share a link.
//
//	container → bridge → route 10.5.3.0/24 via 192.0.2.3 ─► uplink ─► host 192.0.2.3
//
// There is no device and no lease data. The kernel carries the packets, also while
// the daemon does not run.
package hostgw

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// Type is the value of the configuration's Backend.Type.
const Type = "host-gw"

// New checks that the public address is the uplink's own. There are no options.
func New(c backend.Config) (backend.Backend, error) {
	if c.PublicIP != c.Uplink.Addr {
		return nil, fmt.Errorf("public IP %v is not the address %v of interface %s: host-gw cannot work behind NAT, since the other hosts route to it directly; use vxlan", c.PublicIP, c.Uplink.Addr, c.Uplink.Name)
	}
	return &gateway{c}, nil
}

// Remove deletes the routes into network that an earlier run left.
func Remove(ctx context.Context, network netip.Prefix) error {
	return rtnl.RemoveRoutes(ctx, network, func(r rtnl.Route) bool { return r.Kind == rtnl.Gateway })
}

// gateway is the backend before it has a lease.
type gateway struct{ config backend.Config }

// Attrs implements backend.Backend.
func (g *gateway) Attrs() subnet.Attrs {
	return subnet.Attrs{PublicIP: g.config.PublicIP, BackendType: Type}
}

// Up implements backend.Backend.
func (g *gateway) Up(context.Context, subnet.Lease) (backend.Network, error) {
	reconciler, err := rtnl.New(rtnl.Config{Network: g.config.Network, Uplink: g.config.Uplink.Name, Passed: g.config.Reconciled})
	if err != nil {
		return nil, err
	}
	return &network{config: g.config, reconciler: reconciler}, nil
}
