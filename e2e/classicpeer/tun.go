package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// openTUN makes a tunnel device with the address addr/32 and the route for
// network.
func openTUN(name string, addr netip.Addr, network netip.Prefix, mtu int) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make device %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := setUp(name, addr, network, mtu); err != nil {
		f.Close()
		return nil, fmt.Errorf("set up device %s: %w", name, err)
	}
	return f, nil
}

func setUp(name string, addr netip.Addr, network netip.Prefix, mtu int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	host := &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}
	all := &net.IPNet{IP: network.Addr().AsSlice(), Mask: net.CIDRMask(network.Bits(), 32)}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: host}); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Scope: netlink.SCOPE_LINK, Dst: all})
}
