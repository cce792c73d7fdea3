package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"

	"github.com/coreos/flannel/pkg/control"
)

var rekeyCommand = command{
	name: "rekey", summary: "replace this host's WireGuard key while packets flow",
	detail: "It asks the running daemon, which makes a new private key, puts it to use, and writes the public one into the lease,\nwhere the other hosts read it; packets wait in the tunnel meanwhile. It needs root. Other backends than wireguard have no key.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		file := fs.String("subnet-file", "/run/flannel/subnet.env", "`file` that flannel writes; its control socket is beside it")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, _ []string) error {
			done, err := control.Rekey(ctx, control.Path(*file))
			if err != nil {
				return err
			}
			if *asJSON {
				return printJSON(p.Stdout, done)
			}
			_, err = fmt.Fprintf(p.Stdout, "%v: public key %s -> %s, published\n", done.Subnet, publicKey(done.Before), publicKey(done.After))
			return err
		}
	},
}

// publicKey is the one in a wireguard lease's data.
func publicKey(data json.RawMessage) string {
	var lease struct{ PublicKey string }
	if err := json.Unmarshal(data, &lease); err != nil || lease.PublicKey == "" {
		return string(data)
	}
	return lease.PublicKey
}
