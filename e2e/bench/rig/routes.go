package rig

import (
	"context"
	"fmt"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
)

// openRoutes makes a route to each peer's subnet by its address on the link, as
// host-gw does.
func openRoutes(_ context.Context, p *Pair) (way, error) {
	for i, h := range p.hosts {
		if err := addRoutes(h, peersOf(i, p.routes)); err != nil {
			return nil, err
		}
		h.Bridge("docker0", firstAddr(peerSubnet(i)), 0)
	}
	return standing(bridgeAddrs()), nil
}

// addRoutes gives a host a route to the subnet of each of these peers.
func addRoutes(h *netnstest.Host, peers []int) error {
	link, err := h.Netlink().LinkByName(linkName)
	if err != nil {
		return fmt.Errorf("find %s: %w", linkName, err)
	}
	for _, n := range peers {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(peerSubnet(n)), Gw: publicIP(n).AsSlice()}
		if err := h.Netlink().RouteAdd(r); err != nil {
			return fmt.Errorf("add route %v: %w", r.Dst, err)
		}
	}
	return nil
}
