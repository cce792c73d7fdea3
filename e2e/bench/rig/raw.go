package rig

import (
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

func noOverhead(inet.Family) int { return 0 }

// addRoutes adds a route to each peer's subnet via its address on the link, as
// host-gw does. There is no overlay.
func addRoutes(h *netnstest.Host, f inet.Family, self, routes int) error {
	for _, n := range peersOf(self, routes) {
		h.AddRoute(peerSubnet(f, n), publicIP(f, n), "")
	}
	return nil
}
