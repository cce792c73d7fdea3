package rig

import (
	"context"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// devices are a subject of the kernel alone: devices and routes that are set up by hand.
type devices struct {
	overhead func(outer inet.Family) int // of the encapsulation, in bytes
	// add sets up host number self, with a route to each peer.
	add func(h *netnstest.Host, f inet.Family, self, routes int) error
}

func (d devices) open(_ context.Context, p *Pair) (transport, error) {
	f := p.setting.Inside
	for i, h := range p.hosts {
		if err := d.add(h, f, i, p.setting.Routes); err != nil {
			return nil, err
		}
	}
	return static(byHandEnvs(f, linkMTU-d.overhead(f))), nil
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
