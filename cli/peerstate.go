package cli

import (
	"time"

	"github.com/coreos/flannel/pkg/status"
)

// Limits above which peerState reports a peer; the status page has the same.
const (
	lossLimit = 0.05 // share of lost probes
	slowLimit = 0.1  // round trip in seconds
)

// peerState describes whether a peer can be reached, as far as the daemon knows.
func peerState(peer status.Peer) (text, colour string) {
	m := peer.Probe
	switch {
	case peer.Problem != "":
		return peer.Problem, red
	case m == nil || m.Since.IsZero():
		return "unknown", ""
	case m.Silent:
		return "silent for " + time.Since(m.Since).Round(time.Second).String(), red
	case m.Loss > lossLimit:
		return "loses packets", yellow
	case m.RTTSeconds > slowLimit:
		return "slow", yellow
	}
	return "answers", green
}
