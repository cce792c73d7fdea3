package rig

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

const (
	vxlanDevice = "vxlan1"
	vxlanVNI    = 1
	// vxlanPort is Linux's default, from before one was assigned (drivers/net/vxlan),
	// and that of flannel's vxlan backend.
	vxlanPort = 8472
)

// vxlanOverhead returns the size of the outer IP, UDP and VXLAN headers and the inner
// Ethernet header, in bytes (RFC 7348 section 5).
func vxlanOverhead(outer inet.Family) int { return outer.HeaderLen() + 8 + 8 + 14 }

// addVXLAN makes the device of host number self, without learning. Each peer has a
// route, a neighbour and a forwarding entry.
func addVXLAN(h *netnstest.Host, f inet.Family, self, routes int) error {
	nl := h.Netlink()
	uplink, err := nl.LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("find %s: %w", linkName, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = vxlanDevice, linkMTU-vxlanOverhead(f), peerMAC(self)
	dev := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: vxlanVNI, VtepDevIndex: uplink.Attrs().Index,
		SrcAddr: publicIP(f, self).AsSlice(), Port: vxlanPort}
	if err := nl.LinkAdd(dev); err != nil {
		return fmt.Errorf("add %s: %w", vxlanDevice, err)
	}
	h.AddAddr(vxlanDevice, host(peerSubnet(f, self).Addr()))
	h.Up(vxlanDevice)
	link, err := nl.LinkByName(vxlanDevice)
	if err != nil {
		return fmt.Errorf("find %s: %w", vxlanDevice, err)
	}
	for _, n := range peersOf(self, routes) {
		if err := addVXLANPeer(nl, link.Attrs().Index, f, n); err != nil {
			return err
		}
	}
	return nil
}

func addVXLANPeer(nl *netlink.Handle, dev int, f inet.Family, n int) error {
	gateway := net.IP(peerSubnet(f, n).Addr().AsSlice())
	entries := []*netlink.Neigh{
		{LinkIndex: dev, State: netlink.NUD_PERMANENT, IP: gateway, HardwareAddr: peerMAC(n), Type: unix.RTN_UNICAST},
		{LinkIndex: dev, State: netlink.NUD_PERMANENT, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
			IP: publicIP(f, n).AsSlice(), HardwareAddr: peerMAC(n)},
	}
	for _, e := range entries {
		if err := nl.NeighSet(e); err != nil {
			return fmt.Errorf("add neighbour %v of peer %d: %w", e.IP, n, err)
		}
	}
	r := &netlink.Route{LinkIndex: dev, Dst: netnstest.IPNet(peerSubnet(f, n)), Gw: gateway, Flags: int(netlink.FLAG_ONLINK)}
	if err := nl.RouteAdd(r); err != nil {
		return fmt.Errorf("add route %v: %w", r.Dst, err)
	}
	return nil
}
