package rig

import (
	"context"

	"github.com/coreos/flannel/pkg/netnstest"
)

// openRoutes adds a route to each peer's subnet via its address on the link, as
// host-gw does.
func openRoutes(_ context.Context, p *Pair) (transport, error) {
	for i, h := range p.hosts {
		addRoutes(h, peersOf(i, p.routes))
		h.Bridge("docker0", firstAddr(peerSubnet(i)), 0)
	}
	return static(bridgeAddrs()), nil
}

// addRoutes adds a route to the subnet of each of these peers.
func addRoutes(h *netnstest.Host, peers []int) {
	for _, n := range peers {
		h.AddRoute(peerSubnet(n), publicIP(n), "")
	}
}
