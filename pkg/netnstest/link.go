package netnstest

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Up sets an interface up.
func (h *Host) Up(link string) {
	h.lab.scope.Helper()
	h.check(h.nl.LinkSetUp(h.link(link)), "set %s up", link)
}

// Down sets an interface down.
func (h *Host) Down(link string) {
	h.lab.scope.Helper()
	h.check(h.nl.LinkSetDown(h.link(link)), "set %s down", link)
}

// SetMTU sets an interface's MTU in bytes.
func (h *Host) SetMTU(link string, mtu int) {
	h.lab.scope.Helper()
	h.check(h.nl.LinkSetMTU(h.link(link), mtu), "set MTU of %s to %d", link, mtu)
}

// AddAddr adds an address to an interface. An IPv6 address is usable at once, without
// duplicate address detection.
func (h *Host) AddAddr(link string, addr netip.Prefix) {
	h.lab.scope.Helper()
	a := &netlink.Addr{IPNet: IPNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	h.check(h.nl.AddrAdd(h.link(link), a), "add address %v to %s", addr, link)
}

// DelAddr deletes an address of an interface.
func (h *Host) DelAddr(link string, addr netip.Prefix) {
	h.lab.scope.Helper()
	h.check(h.nl.AddrDel(h.link(link), &netlink.Addr{IPNet: IPNet(addr)}), "delete address %v of %s", addr, link)
}

// AddRoute adds a route to dst via a gateway, or directly over link if via is the
// zero Addr. The kernel finds the link of a gateway.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr, link string) {
	h.lab.scope.Helper()
	h.check(h.nl.RouteAdd(h.route(dst, via, link)), "add route %v", dst)
}

// DelRoute deletes a route of AddRoute.
func (h *Host) DelRoute(dst netip.Prefix, via netip.Addr, link string) {
	h.lab.scope.Helper()
	h.check(h.nl.RouteDel(h.route(dst, via, link)), "delete route %v", dst)
}

func (h *Host) route(dst netip.Prefix, via netip.Addr, link string) *netlink.Route {
	h.lab.scope.Helper()
	r := &netlink.Route{Dst: IPNet(dst)}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	}
	if link != "" {
		r.LinkIndex = h.link(link).Attrs().Index
		if !via.IsValid() {
			r.Scope = netlink.SCOPE_LINK
		}
	}
	return r
}

// Bridge makes a bridge as Docker makes docker0: addr is the containers' gateway,
// and the host forwards packets of its family. An mtu of 0 is the kernel's default.
func (h *Host) Bridge(name string, addr netip.Prefix, mtu int) {
	h.lab.scope.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = mtu
	h.check(h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}), "add bridge %s", name)
	h.AddAddr(name, addr)
	h.Up(name)
	if addr.Addr().Is6() {
		h.Sysctl("net.ipv6.conf.all.forwarding", "1")
		return
	}
	h.Sysctl("net.ipv4.ip_forward", "1")
}

// Container makes a namespace whose eth0 is a port of the host's bridge, with
// the address addr of the bridge's network and a default route via gateway.
func (h *Host) Container(name, bridge string, addr netip.Prefix, gateway netip.Addr, mtu int) *Host {
	h.lab.scope.Helper()
	c := h.lab.Namespace(name)
	port := deviceName("veth-" + name)
	h.lab.Wire(h, port, c, "eth0", mtu)
	h.enslave(port, bridge)
	c.AddAddr("eth0", addr)
	c.routeBy(gateway, addr)
	return c
}

// deviceName cuts a name to the length of a device's.
func deviceName(name string) string { return name[:min(len(name), unix.IFNAMSIZ-1)] }

// routeBy gives a container a default route by a gateway, and records its address.
func (h *Host) routeBy(gateway netip.Addr, addr netip.Prefix) {
	h.lab.scope.Helper()
	if gateway.Is6() {
		h.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), gateway, "")
		h.addr6 = addr
		return
	}
	h.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway, "")
	h.addr = addr
}

// RoutedContainer makes a namespace with a host route to it over a veth pair, without
// a bridge, as Calico does. The host's end has the gateway's address.
func (h *Host) RoutedContainer(name string, addr, gateway netip.Addr, mtu int) *Host {
	h.lab.scope.Helper()
	c, port := h.lab.Namespace(name), deviceName("veth-"+name)
	h.lab.Wire(h, port, c, "eth0", mtu)
	h.routeTo(c, port, addr, gateway)
	return c
}

// NetkitContainer is RoutedContainer with a pair of netkit devices in place of veth, as
// Cilium makes. It is an error if the kernel has none.
func (h *Host) NetkitContainer(name string, addr, gateway netip.Addr, mtu int) (*Host, error) {
	h.lab.scope.Helper()
	c := h.lab.Namespace(name)
	pair := &netlink.Netkit{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.NETKIT_MODE_L2, Scrub: netlink.NETKIT_SCRUB_DEFAULT}
	pair.Name, pair.MTU = deviceName("netkit-"+name), mtu
	inside := netlink.NewLinkAttrs()
	inside.Name, inside.MTU, inside.Namespace = "eth0", mtu, netlink.NsFd(c.ns)
	pair.SetPeerAttrs(&inside)
	if err := h.nl.LinkAdd(pair); err != nil {
		return nil, fmt.Errorf("add a pair of netkit devices: %w", err)
	}
	h.Up(pair.Name)
	c.Up("eth0")
	h.routeTo(c, pair.Name, addr, gateway)
	return c, nil
}

// routeTo gives a container its address and routes by the gateway, and the host its part
// of both at a port.
func (h *Host) routeTo(c *Host, port string, addr, gateway netip.Addr) {
	h.lab.scope.Helper()
	host := func(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
	h.AddAddr(port, host(gateway))
	h.AddRoute(host(addr), netip.Addr{}, port)
	h.Sysctl("net.ipv4.ip_forward", "1")
	c.AddAddr("eth0", host(addr))
	c.AddRoute(host(gateway), netip.Addr{}, "eth0")
	c.routeBy(gateway, host(addr))
}

// MacvlanContainer makes a namespace with a macvlan device. The host has the gateway's
// address at another one; the device below both has no wire.
func (h *Host) MacvlanContainer(name string, addr netip.Prefix, gateway netip.Addr, mtu int) *Host {
	h.lab.scope.Helper()
	const below, top = "below0", "macvlan0"
	c := h.lab.Namespace(name)
	h.lab.Wire(h, below, h.lab.Namespace(name+"-wire"), "eth0", mtu)
	macvlan := func(name string) *netlink.Macvlan {
		m := &netlink.Macvlan{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.MACVLAN_MODE_BRIDGE}
		m.Name, m.ParentIndex, m.MTU = name, h.link(below).Attrs().Index, mtu
		return m
	}
	h.check(h.nl.LinkAdd(macvlan(top)), "add macvlan device %s", top)
	h.AddAddr(top, netip.PrefixFrom(gateway, addr.Bits()))
	h.Up(top)
	h.Sysctl("net.ipv4.ip_forward", "1")
	inside := macvlan(deviceName("eth0-" + name))
	inside.Namespace = netlink.NsFd(c.ns)
	h.check(h.nl.LinkAdd(inside), "add macvlan device %s", inside.Name)
	h.check(c.nl.LinkSetName(c.link(inside.Name), "eth0"), "rename %s", inside.Name)
	c.AddAddr("eth0", addr)
	c.Up("eth0")
	c.routeBy(gateway, addr)
	return c
}

// AddIPv6 gives a bridge and a container at it the first two addresses of an IPv6
// network, and the container a default route. The host forwards.
func (h *Host) AddIPv6(bridge string, c *Host, network netip.Prefix) {
	h.lab.scope.Helper()
	gateway := network.Addr().Next()
	h.AddAddr(bridge, netip.PrefixFrom(gateway, network.Bits()))
	h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	addr := netip.PrefixFrom(gateway.Next(), network.Bits())
	c.AddAddr("eth0", addr)
	c.routeBy(gateway, addr)
}

func (h *Host) enslave(port, bridge string) {
	h.lab.scope.Helper()
	h.check(h.nl.LinkSetMaster(h.link(port), h.link(bridge)), "add %s to bridge %s", port, bridge)
}

func (h *Host) link(name string) netlink.Link {
	h.lab.scope.Helper()
	l, err := h.nl.LinkByName(name)
	h.check(err, "find interface %s", name)
	return l
}

// IPNet returns p as a *net.IPNet, for the netlink package.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
