package rtnl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
)

// EnsureUp makes addr, of the network's family, the only address of that family on a
// device of ours, and mtu, in bytes, its MTU. It sets the device up. It changes
// nothing that is so already. IPv6's link-local addresses stay.
func (r *Reconciler) EnsureUp(l netlink.Link, addr netip.Prefix, mtu int) error {
	name := l.Attrs().Name
	if l.Attrs().MTU != mtu {
		if err := r.Links.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", name, mtu, err)
		}
	}
	if r.ipv6 != nil {
		if err := r.ipv6.Set(name); err != nil {
			return err
		}
	}
	if err := r.ensureAddr(l, addr); err != nil {
		return err
	}
	return SetUp(r.Links, l)
}

// ensureAddr makes addr the only address of its family.
func (r *Reconciler) ensureAddr(l netlink.Link, addr netip.Prefix) error {
	name := l.Attrs().Name
	have, err := Addrs(r.Links, l, inet.Of(addr.Addr()))
	if err != nil {
		return err
	}
	for _, a := range have { // of an earlier lease
		if a == addr {
			continue
		}
		log.Infof("delete address device=%s addr=%v", name, a)
		if err := r.Links.AddrDel(l, &netlink.Addr{IPNet: netdev.IPNet(a)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("delete address %v of %s: %w", a, name, err)
		}
	}
	if slices.Contains(have, addr) {
		return nil
	}
	set := &netlink.Addr{IPNet: netdev.IPNet(addr)}
	if addr.Addr().Is6() {
		// Duplicate address detection (RFC 4862 section 5.4) would keep the address
		// from use for a second. A lease is unique, and no neighbour hears the probe.
		set.Flags = unix.IFA_F_NODAD
	}
	if err := r.Links.AddrReplace(l, set); err != nil {
		return fmt.Errorf("add address %v to %s: %w", addr, name, err)
	}
	return nil
}

// CheckUp returns an error if the device does not exist or is not as EnsureUp makes
// it. It changes nothing.
func CheckUp(h *netlink.Handle, name string, addr netip.Prefix, mtu int) error {
	l, err := FindLink(h, name)
	switch {
	case err != nil:
		return err
	case l == nil:
		return fmt.Errorf("device %s does not exist", name)
	case l.Attrs().Flags&net.FlagUp == 0:
		return fmt.Errorf("device %s is down", name)
	case l.Attrs().MTU != mtu:
		return fmt.Errorf("device %s has MTU %d, must have %d", name, l.Attrs().MTU, mtu)
	}
	have, err := Addrs(h, l, inet.Of(addr.Addr()))
	if err == nil && !slices.Equal(have, []netip.Prefix{addr}) {
		err = fmt.Errorf("device %s has addresses %v, must have %v", name, have, addr)
	}
	return err
}
