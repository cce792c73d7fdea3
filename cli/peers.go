package cli

import (
	"context"
	"flag"
	"fmt"
	"strconv"
	"time"

	"github.com/coreos/flannel/pkg/status"
)

var peersCommand = command{
	name: "peers", summary: "list the hosts that the daemon exchanges packets with", json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStatusClient(fs)
		return func(ctx context.Context, _ []string) error {
			r, _, err := s.report(ctx)
			if err != nil {
				return err
			}
			peers := []status.Peer{}
			if r.Backend != nil && r.Backend.Peers != nil {
				peers = r.Backend.Peers
			}
			if p.json {
				return printJSON(p.Stdout, peers)
			}
			rows := [][]string{{"SUBNET", "HOST", "RTT", "LOSS", "MTU", "SENT", "RECEIVED", "FAST", "STATE"}}
			for _, peer := range peers {
				rtt, loss, mtu := probeCells(peer.Probe)
				text, colour := peerState(peer)
				sent, received := formatBytes(peer.TxBytes), formatBytes(peer.RxBytes)
				if peer.Uncounted {
					sent, received = "", ""
				}
				rows = append(rows, []string{peer.Subnet.String(), peer.PublicIP.String(), rtt, loss, mtu,
					sent, received, fastShare(peer), paint(p.Stdout, colour, text)})
			}
			return table(p.Stdout, rows)
		}
	},
}

// fastShare is the share of packets to the peer that took the fast path; empty if
// none did.
func fastShare(p status.Peer) string {
	if p.TxFast == 0 || p.TxPackets == 0 {
		return ""
	}
	return fmt.Sprintf("%d%%", 100*p.TxFast/p.TxPackets)
}

// probeCells formats the results of probes; a cell is empty if it is unknown.
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
