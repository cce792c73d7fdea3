package udp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
)

// openDevice sets the tunnel device up and adds the routes that lead all of
// each Network into it. From then on the reconcilers keep them. All of it goes with
// the device. If the kernel takes one family only, Run tries again with the other.
func (n *network) openDevice() error {
	var errs []error
	for _, f := range n.Inside() {
		r, err := rtnl.New(rtnl.Config{
			Network: n.Of(f).Network, Device: n.path.deviceName(), Passed: n.Reconciled,
			Prepare: func() error { return n.ensureDevice(f) },
		})
		if err != nil {
			return err
		}
		n.reconcilers[f] = r
		n.closers = append(n.closers, r.Close)
		errs = append(errs, n.openRoute(r, n.Of(f).Network))
	}
	return backend.AllFailed(errs)
}

// openRoute sets the device up for one family, and adds the route into it.
func (n *network) openRoute(r *rtnl.Reconciler, network netip.Prefix) error {
	name := n.path.deviceName()
	route := rtnl.Route{Dst: network, Dev: name, Kind: rtnl.Link}
	if err := r.Reset(map[netip.Prefix]rtnl.State{network: {Routes: []rtnl.Route{route}}}); err != nil {
		return fmt.Errorf("set up tunnel device %s: %w", name, err)
	}
	refusal := r.Refusals()[network]
	switch {
	case refusal == nil:
		return nil
	case errors.Is(refusal, rtnl.ErrForeign):
		return fmt.Errorf("add route %v dev %s: %w; another device has this network (see: ip route show %v)", network, name, refusal.Err, network)
	}
	return fmt.Errorf("add %w", refusal)
}

// ensureDevice gives the device its address of a family and its MTU, and sets it up. It
// changes nothing that is so already. It cannot make a device that was deleted: the data
// path's queues are gone with that.
func (n *network) ensureDevice(f inet.Family) error {
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
	return n.reconcilers[f].EnsureUp(link, n.address(f), n.deviceMTU())
}

// address is the device's in a family: the subnet's network address.
func (n *network) address(f inet.Family) netip.Prefix {
	return netip.PrefixFrom(n.own[f].Addr(), f.Bits())
}

// MTU implements backend.Network. It suits the datagrams of every family.
func (n *network) MTU() int {
	mtu := 0
	for i, f := range n.outer {
		if m := n.Of(f).Uplink.MTU - overhead(f); i == 0 || m < mtu {
			mtu = m
		}
	}
	return mtu
}
