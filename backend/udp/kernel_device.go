package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/rtnl"
)

// Remove removes what the kernel data path of an earlier run left for network:
// programs, their pins, and the device. A device that another process has locked
// stays. Remove works in the network namespace of the calling thread.
func Remove(ctx context.Context, network netip.Prefix) error {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	devices, err := leftDevices(h, []netip.Prefix{network})
	if err != nil {
		return err
	}
	lost, err := lostDevices(h)
	if err != nil {
		return err
	}
	for _, device := range slices.Concat(devices, lost) {
		if err := removeDevice(h, device, []netip.Prefix{network}); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// deviceMark is the alias of our persistent devices (ip-link(8)). Another program's
// device with such a name is not ours.
const deviceMark = "flannel data path"

// markDevice marks a device as ours.
func markDevice(h *netlink.Handle, name string) error {
	l, err := h.LinkByName(name)
	if err == nil && l.Attrs().Alias != deviceMark {
		err = h.LinkSetAlias(l, deviceMark)
	}
	if err != nil {
		return fmt.Errorf("mark device %s: %w", name, err)
	}
	return nil
}

// leftDevices returns our persistent devices that serve one of the networks, or that
// have no address because a run was killed before it set one. Earlier releases set no
// mark; their devices have pins.
func leftDevices(h *netlink.Handle, networks []netip.Prefix) ([]string, error) {
	links, err := rtnl.Links(h)
	if err != nil {
		return nil, err
	}
	pinned, err := bpf.Pinned()
	if err != nil {
		return nil, err
	}
	var left []string
	for _, l := range links {
		t, ok := l.(*netlink.Tuntap)
		if !ok || t.Mode != netlink.TUNTAP_MODE_TUN || t.NonPersist || !netdev.IsTUN(t.Name) {
			continue
		}
		if t.Alias != deviceMark && !slices.Contains(pinned, t.Name) { // promise: device-of-others-is-not-ours
			continue
		}
		var addrs []netip.Prefix
		for _, f := range inet.Families {
			of, err := rtnl.Addrs(h, l, f)
			if err != nil {
				return nil, err
			}
			addrs = append(addrs, of...)
		}
		serves := func(a netip.Prefix) bool {
			return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(a.Addr()) })
		}
		if len(addrs) == 0 || slices.ContainsFunc(addrs, serves) {
			left = append(left, t.Name)
		}
	}
	return left, nil
}

// lostDevices returns the devices that have pins and no longer exist.
func lostDevices(h *netlink.Handle) ([]string, error) {
	devices, err := bpf.Pinned()
	if err != nil {
		return nil, err
	}
	var lost []string
	for _, device := range devices {
		exists, err := rtnl.LinkExists(h, device)
		if err != nil {
			return nil, err
		}
		if !exists {
			lost = append(lost, device)
		}
	}
	return lost, nil
}

// removeDevice removes the programs of a device, and then the device, unless
// another process has locked it. A device that serves other networks as well stays
// without the addresses and routes of these.
func removeDevice(h *netlink.Handle, name string, networks []netip.Prefix) error {
	lock, err := netdev.Lock(name)
	if errors.Is(err, netdev.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	shared := false
	if l, e := h.LinkByName(name); e == nil { // programs may have outlived their device
		for _, n := range networks {
			if shared, err = rtnl.Release(h, l, n); err != nil || !shared {
				break
			}
		}
	}
	if !shared && err == nil {
		log.Infof("remove kernel data path of an earlier run device=%s", name)
		err = removePath(h, name)
	}
	return errors.Join(err, lock.Close())
}

func removePath(h *netlink.Handle, device string) error {
	err := removeFast(device)
	pins, pinErr := bpf.PinDir(device)
	if err = errors.Join(err, pinErr); err == nil {
		err = errors.Join(bpf.Remove(pins), bpf.RemoveSegmenter(h, device))
	}
	if err != nil {
		return err
	}
	return rtnl.DeleteLink(h, device)
}

// lockDevice locks the device that an earlier run left, or a name that is free. It
// removes other devices that are left.
func lockDevice(h *netlink.Handle, networks []netip.Prefix) (name string, found bool, lock io.Closer, err error) {
	left, err := leftDevices(h, networks)
	if err != nil {
		return "", false, nil, err
	}
	for i, device := range left {
		lock, err := netdev.Lock(device)
		if errors.Is(err, netdev.ErrLocked) {
			continue
		}
		if err != nil {
			return "", false, nil, err
		}
		for _, other := range left[i+1:] {
			err = errors.Join(err, removeDevice(h, other, networks))
		}
		return device, true, lock, err
	}
	for i := 0; ; i++ {
		name = fmt.Sprintf(netdev.TUNPattern, i)
		exists, err := rtnl.LinkExists(h, name)
		if err != nil {
			return "", false, nil, err
		}
		if exists {
			continue
		}
		lock, err = netdev.Lock(name)
		if !errors.Is(err, netdev.ErrLocked) {
			return name, false, lock, err
		}
	}
}

// kernelAtWork reports whether a kernel data path of an earlier run carries packets
// for one of the networks.
func kernelAtWork(networks []netip.Prefix) (bool, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("open route netlink: %w", err)
	}
	defer h.Close()
	left, err := leftDevices(h, networks)
	if err != nil || len(left) == 0 {
		return false, err
	}
	pinned, err := bpf.Pinned()
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(left, func(device string) bool { return slices.Contains(pinned, device) }), nil
}
