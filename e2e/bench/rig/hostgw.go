package rig

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// byHandRoutes is a route to each peer's subnet by its address on the link.
type byHandRoutes struct{}

func openRoutes(_ context.Context, p *Pair) (way, error) {
	for i, h := range p.hosts {
		link, err := h.Netlink().LinkByName(linkName)
		if err != nil {
			return nil, fmt.Errorf("find %s: %w", linkName, err)
		}
		for n := 0; n <= p.routes; n++ {
			if n == i {
				continue
			}
			r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(peerSubnet(n)), Gw: publicIP(n).AsSlice()}
			if err := h.Netlink().RouteAdd(r); err != nil {
				return nil, fmt.Errorf("add route %v: %w", r.Dst, err)
			}
		}
		h.Bridge("docker0", firstAddr(peerSubnet(i)), 0)
	}
	return byHandRoutes{}, nil
}

func (byHandRoutes) up(context.Context) ([2]netip.Addr, error) {
	return [2]netip.Addr{firstAddr(peerSubnet(0)).Addr(), firstAddr(peerSubnet(1)).Addr()}, nil
}

func (byHandRoutes) down() error { return nil }
