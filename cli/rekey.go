package cli

import (
	"context"
	"encoding/json"
	"flag"

	"github.com/coreos/flannel/pkg/control"
)

var rekeyCommand = command{
	name: "rekey", summary: "replace this host's WireGuard key while packets flow",
	detail: "The running daemon makes a new private key, uses it, and publishes the public key in the lease, where the other hosts\n" +
		"read it; until they do, the tunnel queues packets. The request goes to a socket beside -subnet-file and needs root.\n" +
		"Only the backend wireguard has a key.",
	json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		file := subnetFileFlag(fs)
		return func(ctx context.Context, _ []string) error {
			done, err := control.Rekey(ctx, control.Path(*file))
			if err != nil {
				return err
			}
			return p.print(done, "%v: public key %s -> %s, published\n", done.Subnet, publicKey(done.Before), publicKey(done.After))
		}
	},
}

// publicKey returns the key in the data of a wireguard lease.
func publicKey(data json.RawMessage) string {
	var lease struct{ PublicKey string }
	if err := json.Unmarshal(data, &lease); err != nil || lease.PublicKey == "" {
		return string(data)
	}
	return lease.PublicKey
}
