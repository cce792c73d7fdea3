package vxlan

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/rtnl"
)

// removeMade deletes the device if this run made it. A start that fails leaves
// nothing behind.
func (d *device) removeMade() error {
	if !d.made {
		return nil
	}
	return rtnl.DeleteLink(d.reconciler.Links, d.name)
}

// explainUp says what an error of the kernel means. It names an MTU above the
// uplink's, and the device that has the port. The kernel opens a VXLAN device's
// socket when the device is set up. Two devices share a socket only if their
// flags agree (vxlan_find_sock in drivers/net/vxlan).
func (d *device) explainUp(err error, uplinkMTU int) error {
	if errors.Is(err, unix.EINVAL) && d.options.MTU > uplinkMTU {
		return fmt.Errorf("%w: Backend.MTU %d is more than the MTU %d of interface %s, by which this host sends to the others: raise that, or lower Backend.MTU", err, d.options.MTU, uplinkMTU, d.uplink)
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		return err
	}
	links, listed := rtnl.Links(d.reconciler.Links)
	if listed != nil {
		return fmt.Errorf("%w (%w)", explain(err, d.options), listed)
	}
	for _, l := range links {
		if v, ok := l.(*netlink.Vxlan); ok && v.Name != d.name && v.Port == d.options.Port {
			return fmt.Errorf("%w: the VXLAN device %s of another program has UDP port %d: remove it, or choose another Backend.Port for all hosts", err, v.Name, v.Port)
		}
	}
	return explain(err, d.options)
}
