package rig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

const (
	// udpPort is that of flannel's udp backend.
	udpPort       = 8285
	bareUDPDevice = "bareudp1"
)

// udpOverhead returns the size of the outer IP and UDP headers, in bytes.
func udpOverhead(outer inet.Family) int { return outer.HeaderLen() + 8 }

// addFOU makes the socket of FOU on host number self, which takes the UDP header off
// (net/ipv4/fou_core.c), and a tunnel device for each peer. The bytes on the wire are
// those of flannel's udp backend.
func addFOU(h *netnstest.Host, f inet.Family, self, routes int) error {
	socket := netlink.Fou{Family: unix.AF_INET, Port: udpPort, Protocol: unix.IPPROTO_IPIP, EncapType: netlink.FOU_ENCAP_DIRECT}
	if f == inet.IPv6 {
		socket.Family, socket.Protocol = unix.AF_INET6, unix.IPPROTO_IPV6
	}
	// The handle opens its socket of generic netlink in the calling thread's namespace.
	err := h.Do(func() error { return h.Netlink().FouAdd(socket) })
	if errors.Is(err, unix.ENOENT) {
		return &RefusedError{"the kernel has no FOU: load its module fou, or use a kernel with CONFIG_NET_FOU"}
	}
	if err != nil {
		return fmt.Errorf("add FOU to port %d: %w", udpPort, err)
	}
	for _, n := range peersOf(self, routes) {
		dev := fouDevice(f, self, n)
		if err := addTunnel(h.Netlink(), dev); err != nil {
			return err
		}
		h.Up(dev.Attrs().Name)
		h.AddRoute(peerSubnet(f, n), netip.Addr{}, dev.Attrs().Name)
	}
	return nil
}

// fouDevice describes the device of host number self to peer number n. The kernel
// chooses the source port by the flow, as flannel does, and computes no UDP checksum.
func fouDevice(f inet.Family, self, n int) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = fmt.Sprintf("fou%d", n), linkMTU-udpOverhead(f)
	local, remote := net.IP(publicIP(f, self).AsSlice()), net.IP(publicIP(f, n).AsSlice())
	if f == inet.IPv4 {
		return &netlink.Iptun{LinkAttrs: attrs, Local: local, Remote: remote, Ttl: hopLimit, PMtuDisc: 1,
			EncapType: uint16(netlink.FOU), EncapDport: udpPort}
	}
	return &netlink.Ip6tnl{LinkAttrs: attrs, Local: local, Remote: remote, Ttl: hopLimit, Proto: unix.IPPROTO_IPV6,
		Flags: ignoreEncapLimit, EncapType: uint16(netlink.FOU), EncapDport: udpPort}
}

const (
	hopLimit = 64
	// ignoreEncapLimit is IP6_TNL_F_IGN_ENCAP_LIMIT (linux/ip6_tunnel.h): no destination
	// option before the UDP header.
	ignoreEncapLimit = 1
)

// addBareUDP makes one device on host number self, which gets the peer's address from the
// route (drivers/net/bareudp.c). The bytes on the wire are those of flannel's udp backend.
func addBareUDP(h *netnstest.Host, f inet.Family, self, routes int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bareUDPDevice, linkMTU-udpOverhead(f)
	dev := &netlink.BareUDP{LinkAttrs: attrs, Port: udpPort, EtherType: unix.ETH_P_IP}
	if f == inet.IPv6 {
		dev.EtherType = unix.ETH_P_IPV6
	}
	if err := addTunnel(h.Netlink(), dev); err != nil {
		return err
	}
	h.Up(bareUDPDevice)
	link, err := h.Netlink().LinkByName(bareUDPDevice)
	if err != nil {
		return fmt.Errorf("find %s: %w", bareUDPDevice, err)
	}
	for _, n := range peersOf(self, routes) {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: netnstest.IPNet(peerSubnet(f, n)), Encap: &outerHeader{publicIP(f, n)}}
		if err := h.Netlink().RouteAdd(r); err != nil {
			return fmt.Errorf("add route %v: %w", r.Dst, err)
		}
	}
	return nil
}

// addTunnel adds a device, or returns a *RefusedError if the kernel does not know its kind.
func addTunnel(nl *netlink.Handle, dev netlink.Link) error {
	err := nl.LinkAdd(dev)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return &RefusedError{fmt.Sprintf("the kernel has no devices of kind %[1]s: run modprobe rtnl-link-%[1]s, or use a kernel that has the module", dev.Type())}
	}
	if err != nil {
		return fmt.Errorf("add %s: %w", dev.Attrs().Name, err)
	}
	return nil
}
