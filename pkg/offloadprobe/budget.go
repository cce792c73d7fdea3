package offloadprobe

import (
	"time"

	"github.com/coreos/flannel/pkg/inet"
)

const (
	// hostPeers is the number of peers with the full rate. More peers share it.
	hostPeers = 100
	// usualCost is the cost of a peer that is 124.6 bytes a second with an interval of 24 s.
	usualCost = 2990
	// checkSpacing is the minimum time between the begins of two checks, or groups of
	// them. One wake-up serves a group.
	checkSpacing = 500 * time.Millisecond
)

// overhead is the number of bytes that a host sends for one peer in a round, beside the
// super-packet of TCP. It has the checks of the peer, and the receipts of the peer's
// checks. Each packet counts with its encapsulation in VXLAN.
var overhead = [...]int{inet.IPv4: 1250, inet.IPv6: 1640}

// cost is the number of bytes that a host sends for a peer in a round.
func cost(f inet.Family, mtu int) int { return mtu + overhead[f] }

// round returns the time in which each of n peers gets both checks. It is longer than
// interval for more than hostPeers, and for peers that cost more than usual. So peers and
// host keep their budgets.
func round(interval time.Duration, n, cost int) time.Duration {
	share := float64(max(n, hostPeers)) / hostPeers
	size := max(1, float64(cost)/usualCost)
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
