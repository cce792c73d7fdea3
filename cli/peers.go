package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

var peersCommand = command{
	name: "peers", summary: "list the hosts that the daemon exchanges packets with",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s statusSource
		s.register(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, _ []string) error {
			r, _, err := s.report(ctx)
			if err != nil {
				return err
			}
			peers := []status.Peer{}
			if r.Backend != nil && r.Backend.Peers != nil {
				peers = r.Backend.Peers
			}
			if *asJSON {
				return printJSON(p.Stdout, peers)
			}
			rows := [][]string{{"SUBNET", "HOST", "RTT", "LOSS", "MTU", "SENT", "RECEIVED", "STATE"}}
			for _, peer := range peers {
				rtt, loss, mtu := probeCells(peer.Probe)
				text, colour := stateOf(peer)
				sent, received := bytesOf(peer.TxBytes), bytesOf(peer.RxBytes)
				if peer.Uncounted {
					sent, received = "-", "-"
				}
				rows = append(rows, []string{peer.Subnet.String(), peer.PublicIP.String(), rtt, loss, mtu,
					sent, received, paint(p.Stdout, colour, text)})
			}
			return table(p.Stdout, rows)
		}
	},
}

// peerWords sums up the peers, and names the first few that are not reached.
func peerWords(w io.Writer, peers []status.Peer) string {
	const named = 3
	answering, problems := 0, 0
	var bad []string
	for _, peer := range peers {
		text, colour := stateOf(peer)
		switch {
		case colour == red:
			bad = append(bad, fmt.Sprintf("%v %s", peer.Subnet, text))
			if peer.Problem != "" {
				problems++
			}
		case peer.Probe != nil && !peer.Probe.Since.IsZero():
			answering++
		}
	}
	words := strconv.Itoa(len(peers))
	if answering > 0 {
		words += fmt.Sprintf(", %d answering", answering)
	}
	if silent := len(bad) - problems; silent > 0 {
		words += ", " + paint(w, red, fmt.Sprintf("%d silent", silent))
	}
	if problems > 0 {
		words += ", " + paint(w, red, fmt.Sprintf("%d with problems", problems))
	}
	if len(bad) == 0 {
		return words
	}
	more := ""
	if len(bad) > named {
		bad, more = bad[:named], "; …"
	}
	return words + " (" + strings.Join(bad, "; ") + more + ")"
}

// probeCells are what pings through the overlay have measured; empty where
// nothing is known.
func probeCells(m *status.Probe) (rtt, loss, mtu string) {
	if m == nil {
		return "", "", ""
	}
	if m.RTTSeconds > 0 {
		rtt = time.Duration(m.RTTSeconds * float64(time.Second)).Round(10 * time.Microsecond).String()
	}
	if m.MTU > 0 {
		mtu = strconv.Itoa(m.MTU)
	}
	return rtt, fmt.Sprintf("%.0f%%", m.Loss*100), mtu
}

// lossy is the share of probes that may be lost without a word, and slow the
// round trip from which on it is told; the status page has the same.
const (
	lossy = 0.05
	slow  = 0.1 // seconds
)

// stateOf says whether packets can be exchanged with a peer, as far as is known.
func stateOf(peer status.Peer) (text, colour string) {
	m := peer.Probe
	switch {
	case peer.Problem != "":
		return peer.Problem, red
	case m == nil || m.Since.IsZero():
		return "not known", ""
	case m.Silent:
		return "silent for " + time.Since(m.Since).Round(time.Second).String(), red
	case m.Loss > lossy:
		return "loses packets", yellow
	case m.RTTSeconds > slow:
		return "slow", yellow
	}
	return "answers", green
}
