package rig

import (
	"context"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// openRaw adds a route to each peer's subnet via its address on the link, as
// host-gw does. There is no overlay.
func openRaw(_ context.Context, p *Pair) (transport, error) {
	for i, h := range p.hosts {
		addRoutes(h, p.setting.Inside, peersOf(i, p.setting.Routes))
	}
	return static(byHandEnvs(p.setting.Inside, linkMTU)), nil
}

// addRoutes adds a route to the subnet of each of these peers.
func addRoutes(h *netnstest.Host, f inet.Family, peers []int) {
	for _, n := range peers {
		h.AddRoute(peerSubnet(f, n), publicIP(f, n), "")
	}
}

// static is a transport without a program, which is always up.
type static [2]subnetfile.Env

func (s static) up(context.Context) ([2]subnetfile.Env, error) { return s, nil }

func (static) down() error { return nil }

// byHandEnvs returns what subnet.env would contain on the real hosts if no daemon
// chooses the subnets. There is one family.
func byHandEnvs(f inet.Family, mtu int) (envs [2]subnetfile.Env) {
	for i := range envs {
		if f == inet.IPv4 {
			envs[i] = subnetfile.Env{Network: overlays[f], Subnet: peerSubnet(f, i), MTU: mtu}
		} else {
			envs[i] = subnetfile.Env{IPv6Network: overlays[f], IPv6Subnet: peerSubnet(f, i), MTU: mtu}
		}
	}
	return envs
}
