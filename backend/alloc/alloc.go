// Package alloc is the backend that leases a subnet and carries no packets. It is
// for networks whose routers have routes already, such as a cloud's route table.
package alloc

import (
	"context"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// New returns the alloc backend, which has no options.
func New(c backend.Config) (backend.Backend, error) { return allocBackend{c}, nil }

type allocBackend struct{ config backend.Config }

func (b allocBackend) Attrs() (a subnet.Attrs) {
	for _, f := range inet.Families {
		a.SetFamily(f, b.config.Of(f).PublicIP, nil)
	}
	return a
}

func (b allocBackend) Up(context.Context, subnet.Lease) (backend.Network, error) {
	mtu := 0
	for _, f := range inet.Families {
		if s := b.config.Of(f); s.Outside() && (mtu == 0 || s.Uplink.MTU < mtu) {
			mtu = s.Uplink.MTU
		}
	}
	return network{mtu}, nil
}

// network has the smaller MTU of the uplinks, since it encapsulates nothing.
type network struct{ mtu int }

func (n network) MTU() int           { return n.mtu }
func (network) DataPath() string     { return "none" }
func (network) Apply([]subnet.Event) {}
func (network) Check() error         { return nil } // it has no kernel state
func (network) Close() error         { return nil }

func (network) Encapsulation() backend.Encapsulation { return backend.Unencapsulated }

func (network) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (n network) Stats() backend.Stats {
	return backend.Stats{DataPath: n.DataPath(), Reason: "backend alloc carries no packets"}
}
