package udp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
)

// openDevice sets the tunnel device up and adds the route that leads all of
// Network into it. From then on the reconciler keeps both. All of it goes with
// the device.
func (n *network) openDevice() (err error) {
	name := n.path.deviceName()
	n.reconciler, err = rtnl.New(rtnl.Config{Network: n.Network, Device: name, Prepare: n.ensureDevice, Passed: n.Reconciled})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.reconciler.Close)
	route := rtnl.Route{Dst: n.Network, Dev: name, Kind: rtnl.Link}
	if err := n.reconciler.Reset(map[netip.Prefix]rtnl.State{n.Network: {Routes: []rtnl.Route{route}}}); err != nil {
		return fmt.Errorf("set up tunnel device %s: %w", name, err)
	}
	refusal := n.reconciler.Refusals()[n.Network]
	switch {
	case refusal == nil:
		return nil
	case errors.Is(refusal, rtnl.ErrForeign):
		return fmt.Errorf("add route %v dev %s: %w; another device has this network (see: ip route show %v)", n.Network, name, refusal.Err, n.Network)
	}
	return fmt.Errorf("add %w", refusal)
}

// ensureDevice gives the device its address and MTU, and sets it up. It changes
// nothing that is so already. It cannot make a device that was deleted: the data
// path's queues are gone with that.
func (n *network) ensureDevice() error {
	name := n.path.deviceName()
	link, err := n.links.LinkByName(name)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		return reconcile.Stop(fmt.Errorf("%w: %s: %w", backend.ErrGone, name, err))
	}
	if err != nil {
		return fmt.Errorf("look up tunnel device %s: %w", name, err)
	}
	err = mendTUN(n.links, n.path)
	if errors.Is(err, errForeignQueue) {
		return reconcile.Stop(fmt.Errorf("%w: %s: %w", backend.ErrGone, name, err))
	}
	if err != nil {
		return err
	}
	return n.reconciler.EnsureUp(link, n.address(), n.MTU())
}
