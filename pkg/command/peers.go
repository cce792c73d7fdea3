package command

import (
	"context"
	"flag"

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
			rows := [][]string{{"SUBNET", "HOST", "SENT", "RECEIVED", "PROBLEM"}}
			for _, peer := range peers {
				rows = append(rows, []string{peer.Subnet.String(), peer.PublicIP.String(),
					bytesOf(peer.TxBytes), bytesOf(peer.RxBytes), peer.Problem})
			}
			return table(p.Stdout, rows)
		}
	},
}
