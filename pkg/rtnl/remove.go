package rtnl

import (
	"errors"
	"fmt"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
)

// RemoveDevices deletes the devices of a kind that an earlier run left: those with
// a name that match returns true for and an address in network. A device that a
// running flannel has locked stays. It works in the network namespace of the
// calling thread.
func RemoveDevices(network netip.Prefix, kind string, match func(name string) bool) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	links, err := Links(h)
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range links {
		if l.Type() == kind && match(l.Attrs().Name) {
			errs = append(errs, removeDevice(h, l, network))
		}
	}
	return errors.Join(errs...)
}

func removeDevice(h *netlink.Handle, l netlink.Link, network netip.Prefix) error {
	if within, err := Within(h, l, network); err != nil || !within {
		return err
	}
	name := l.Attrs().Name
	lock, err := netdev.Lock(name)
	if errors.Is(err, netdev.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	log.Infof("remove device of an earlier run device=%s", name)
	if err = h.LinkDel(l); err != nil {
		err = fmt.Errorf("delete device %s: %w", name, err)
	}
	return errors.Join(err, lock.Close())
}

// RemoveRoutes deletes the routes of a kind into network that an earlier run left.
// It works in the network namespace of the calling thread.
func RemoveRoutes(network netip.Prefix, kind Kind) error {
	c, err := dial()
	if err != nil {
		return err
	}
	defer c.sock.Close()
	s := scope{config: Config{Network: network}}
	have, err := c.routes(s)
	if err != nil {
		return err
	}
	d := new(difference)
	for i := range have {
		if r := &have[i]; r.protocol == Protocol && r.Kind == kind && s.inNetwork(r) {
			d.removeRoute(*r)
		}
	}
	if len(d.remove) > 0 {
		log.Infof("remove routes of an earlier run network=%v routes=%d", network, len(d.remove))
	}
	return errors.Join(c.do(d.remove), summary(d.failed))
}
