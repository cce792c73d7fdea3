package netnstest

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Up sets an interface up.
func (h *Host) Up(link string) {
	h.lab.scope.Helper()
	if err := h.nl.LinkSetUp(h.link(link)); err != nil {
		h.lab.scope.Fatalf("host %s: set %s up: %v", h.name, link, err)
	}
}

// Down sets an interface down.
func (h *Host) Down(link string) {
	h.lab.scope.Helper()
	if err := h.nl.LinkSetDown(h.link(link)); err != nil {
		h.lab.scope.Fatalf("host %s: set %s down: %v", h.name, link, err)
	}
}

// SetMTU sets an interface's MTU in bytes.
func (h *Host) SetMTU(link string, mtu int) {
	h.lab.scope.Helper()
	if err := h.nl.LinkSetMTU(h.link(link), mtu); err != nil {
		h.lab.scope.Fatalf("host %s: set MTU of %s to %d: %v", h.name, link, mtu, err)
	}
}

// AddAddr gives an interface an address.
func (h *Host) AddAddr(link string, addr netip.Prefix) {
	h.lab.scope.Helper()
	if err := h.nl.AddrAdd(h.link(link), &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		h.lab.scope.Fatalf("host %s: add address %v to %s: %v", h.name, addr, link, err)
	}
}

// DelAddr takes an interface's address away.
func (h *Host) DelAddr(link string, addr netip.Prefix) {
	h.lab.scope.Helper()
	if err := h.nl.AddrDel(h.link(link), &netlink.Addr{IPNet: ipNet(addr)}); err != nil {
		h.lab.scope.Fatalf("host %s: delete address %v of %s: %v", h.name, addr, link, err)
	}
}

// AddRoute adds a route to dst via a gateway, or, where via is the zero Addr,
// straight out of link. The kernel finds the link of a gateway itself.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr, link string) {
	h.lab.scope.Helper()
	if err := h.nl.RouteAdd(h.route(dst, via, link)); err != nil {
		h.lab.scope.Fatalf("host %s: add route %v: %v", h.name, dst, err)
	}
}

// DelRoute takes away what AddRoute added.
func (h *Host) DelRoute(dst netip.Prefix, via netip.Addr, link string) {
	h.lab.scope.Helper()
	if err := h.nl.RouteDel(h.route(dst, via, link)); err != nil {
		h.lab.scope.Fatalf("host %s: delete route %v: %v", h.name, dst, err)
	}
}

func (h *Host) route(dst netip.Prefix, via netip.Addr, link string) *netlink.Route {
	h.lab.scope.Helper()
	r := &netlink.Route{Dst: ipNet(dst)}
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

// Bridge makes a bridge as Docker makes docker0: addr is the containers'
// gateway, and the host forwards. An mtu of 0 leaves the kernel's default.
func (h *Host) Bridge(name string, addr netip.Prefix, mtu int) {
	h.lab.scope.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	attrs.MTU = mtu
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		h.lab.scope.Fatalf("host %s: add bridge %s: %v", h.name, name, err)
	}
	h.AddAddr(name, addr)
	h.Up(name)
	h.Sysctl("net.ipv4.ip_forward", "1")
}

// Container makes a namespace whose eth0 is a port of the host's bridge, with
// the address addr of the bridge's network and a default route via gateway.
func (h *Host) Container(name, bridge string, addr netip.Prefix, gateway netip.Addr, mtu int) *Host {
	h.lab.scope.Helper()
	c := h.lab.Namespace(name)
	// The name of a port is of no meaning, and 15 bytes are all that it may have.
	port := "veth-" + name
	if len(port) > 15 {
		port = port[:15]
	}
	h.lab.Wire(h, port, c, "eth0", mtu)
	h.enslave(port, bridge)
	c.AddAddr("eth0", addr)
	c.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), gateway, "")
	c.addr = addr
	return c
}

func (h *Host) enslave(port, bridge string) {
	h.lab.scope.Helper()
	if err := h.nl.LinkSetMaster(h.link(port), h.link(bridge)); err != nil {
		h.lab.scope.Fatalf("host %s: add %s to bridge %s: %v", h.name, port, bridge, err)
	}
}

func (h *Host) link(name string) netlink.Link {
	h.lab.scope.Helper()
	l, err := h.nl.LinkByName(name)
	if err != nil {
		h.lab.scope.Fatalf("host %s: find interface %s: %v", h.name, name, err)
	}
	return l
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
