package rtnl

import (
	"errors"
	"fmt"
	"net/netip"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
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
	shared, err := Release(h, l, network)
	if !shared && err == nil {
		log.Infof("remove device of an earlier run device=%s", name)
		if err = h.LinkDel(l); err != nil {
			err = fmt.Errorf("delete device %s: %w", name, err)
		}
	}
	return errors.Join(err, lock.Close())
}

// Release takes the addresses and our routes of network off a device that serves
// another network as well, as one device may serve those of both families. shared is
// false for a device that serves no other: the caller may delete it.
func Release(h *netlink.Handle, l netlink.Link, network netip.Prefix) (shared bool, err error) {
	var within []netip.Prefix
	for _, f := range inet.Families {
		addrs, err := Addrs(h, l, f)
		if err != nil {
			return false, err
		}
		for _, a := range addrs {
			if network.Contains(a.Addr()) {
				within = append(within, a)
			} else {
				shared = true
			}
		}
	}
	if !shared {
		return false, nil
	}
	name := l.Attrs().Name
	log.Infof("take a network of an earlier run off device=%s network=%v", name, network)
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Protocol: Protocol}
	routes, err := Routes(h, inet.Of(network.Addr()), filter, netlink.RT_FILTER_OIF|netlink.RT_FILTER_PROTOCOL)
	errs := []error{err}
	for _, r := range routes {
		if r.Dst == nil || !network.Contains(netdev.Prefix(*r.Dst).Addr()) {
			continue
		}
		if err := h.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("delete route %v of %s: %w", r.Dst, name, err))
		}
	}
	for _, a := range within {
		if err := h.AddrDel(l, &netlink.Addr{IPNet: netdev.IPNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			errs = append(errs, fmt.Errorf("delete address %v of %s: %w", a, name, err))
		}
	}
	return true, errors.Join(errs...)
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
