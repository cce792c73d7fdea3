package vxlan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// Remove deletes what an earlier run left for network: the device, which its routes
// go with, and direct routes.
func Remove(ctx context.Context, network netip.Prefix) error {
	return errors.Join(
		removeDevices(network, ""),
		rtnl.RemoveRoutes(ctx, network, func(r rtnl.Route) bool { return r.Kind == rtnl.OnLink }))
}

// removeDevices deletes VXLAN devices with a name of ours and an address in network,
// except keep and those that a running flannel has locked.
func removeDevices(network netip.Prefix, keep string) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := rtnl.Links(h)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		name := l.Attrs().Name
		if l.Type() != "vxlan" || !netdev.IsVXLAN(name) || name == keep {
			continue
		}
		if within, err := rtnl.Within(h, l, network); err != nil || !within {
			errs = append(errs, err)
			continue
		}
		lock, err := netdev.Lock(name)
		if errors.Is(err, netdev.ErrLocked) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		log.Infof("remove device of an earlier run device=%s", name)
		if err = h.LinkDel(l); err != nil {
			err = fmt.Errorf("delete device %s: %w", name, err)
		}
		errs = append(errs, err, lock.Close())
	}
	return errors.Join(errs...)
}
