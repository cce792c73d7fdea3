package backend

import (
	"maps"
	"net/netip"
	"slices"
)

// UncountedPeers returns the statistics of peers whose packets the kernel does not
// count, sorted by subnet. describe returns a peer's PublicIP, and its problem or
// nil.
func UncountedPeers[P any](peers map[netip.Prefix]P, describe func(netip.Prefix, P) (publicIP netip.Addr, problem error)) []PeerStats {
	all := make([]PeerStats, 0, len(peers))
	for _, dst := range slices.SortedFunc(maps.Keys(peers), netip.Prefix.Compare) {
		publicIP, problem := describe(dst, peers[dst])
		stats := PeerStats{Subnet: dst, PublicIP: publicIP, Uncounted: true}
		if problem != nil {
			stats.Problem = problem.Error()
		}
		all = append(all, stats)
	}
	return all
}
