// Package alloc is the backend that leases a subnet and carries nothing: for
// networks whose routers know the way already, such as a cloud's route table.
package alloc

import (
	"context"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/subnet"
)

// New returns the alloc backend; it has no options.
func New(c backend.Config) (backend.Backend, error) { return allocBackend{c}, nil }

type allocBackend struct{ config backend.Config }

func (b allocBackend) Attrs() subnet.Attrs { return subnet.Attrs{PublicIP: b.config.PublicIP} }

func (b allocBackend) Up(context.Context, subnet.Lease) (backend.Network, error) {
	return network{mtu: b.config.Uplink.MTU}, nil
}

// network is the uplink as it is: nothing is encapsulated, so nothing is lost
// of its MTU.
type network struct{ mtu int }

func (n network) MTU() int           { return n.mtu }
func (network) DataPath() string     { return "none" }
func (network) Apply([]subnet.Event) {}
func (network) Close() error         { return nil }

// Check has nothing to look at: there is no device, and no route is ours.
func (network) Check() error { return nil }

func (network) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func (n network) Stats() backend.Stats {
	return backend.Stats{DataPath: n.DataPath(), Reason: "backend alloc carries no packets"}
}
