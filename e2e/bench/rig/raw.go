package rig

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// raw is the link without anything on it.
type raw struct{}

// openRaw adds the routes to made-up peers, so that the kernel's route look-up
// is no cheaper than the others'.
func openRaw(_ context.Context, p *Pair) (way, error) {
	for _, h := range p.hosts {
		link, err := h.Netlink().LinkByName(linkName)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", linkName, err)
		}
		for n := 2; n <= p.routes; n++ {
			r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(peerSubnet(n)), Gw: publicIP(n).AsSlice()}
			if err := h.Netlink().RouteAdd(r); err != nil {
				return nil, fmt.Errorf("add route %v: %w", r.Dst, err)
			}
		}
	}
	return raw{}, nil
}

func (raw) up(context.Context) ([2]netip.Addr, error) {
	return [2]netip.Addr{publicIP(0), publicIP(1)}, nil
}

func (raw) down() error { return nil }

// The overlay that all subjects share, and the subnets in it.
var overlay = netip.MustParsePrefix("10.0.0.0/8")

const subnetLen = 24

// peerSubnet is the subnet of peer number n. 0 and 1 are real, but where a
// daemon runs, it has chosen another.
func peerSubnet(n int) netip.Prefix {
	const size = 1 << (32 - subnetLen)
	return netip.PrefixFrom(nth(overlay.Addr(), (n+1)*size), subnetLen)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
