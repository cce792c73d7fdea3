package offloadprobe

import "time"

const (
	// hostPeers and more share the rate of so many peers.
	hostPeers = 100
	// tcpOverhead and udpCost are the bytes that a host sends for the checks of one
	// peer and for the receipts of the peer's, beside the super-packet of TCP. 50 bytes of
	// encapsulation for each packet are in them.
	tcpOverhead, udpCost = 850, 600
	// usualMTU is the MTU at which a peer costs 122 bytes a second with an interval of
	// 24 s.
	usualMTU = 1480
	// checkSpacing is the minimum time between the begins of two checks, or groups of
	// them. One wake-up serves a group.
	checkSpacing = 500 * time.Millisecond
)

// round returns the time in which each of n peers gets both checks. It is longer than
// interval for more than hostPeers, and for an MTU above usualMTU, so that peers and
// host keep their budgets.
func round(interval time.Duration, n, mtu int) time.Duration {
	share := float64(max(n, hostPeers)) / hostPeers
	size := float64(max(mtu, usualMTU)+tcpOverhead+udpCost) / (usualMTU + tcpOverhead + udpCost)
	return time.Duration(float64(interval) * share * size)
}

// pace returns how many of n peers are checked at once, and the pause before the next
// ones. A round has two checks of each peer.
func pace(round time.Duration, n int) (group int, pause time.Duration) {
	if n == 0 {
		return 0, round / 2
	}
	pause = max(round/time.Duration(2*n), 1)
	if pause >= checkSpacing {
		return 1, pause
	}
	group = int((checkSpacing + pause - 1) / pause)
	if group > n { // a short interval
		group = n
	}
	return group, time.Duration(group) * pause
}
