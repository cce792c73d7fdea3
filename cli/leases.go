package cli

import (
	"context"
	"flag"
	"strings"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

var leasesCommand = command{
	name: "leases", summary: "list the subnets in the store and their hosts", json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStoreFlags(fs)
		return func(ctx context.Context, _ []string) error {
			return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
				leases, err := listLeases(ctx, st)
				if err != nil {
					return err
				}
				list := make([]leaseJSON, 0, len(leases))
				rows := [][]string{{"SUBNET", "HOST", "NAME", "UNTIL", "BACKEND", "DATA"}}
				for _, lease := range leases {
					l := newLeaseJSON(lease)
					list = append(list, l)
					rows = append(rows, []string{lease.Subnets(), addresses(lease.Attrs), l.Hostname,
						formatExpiry(l.ExpiresAt, l.Reserved), l.BackendType, strings.TrimSpace(string(l.BackendData) + " " + string(l.BackendV6Data))})
				}
				if p.json {
					return printJSON(p.Stdout, list)
				}
				return table(p.Stdout, rows)
			})
		}
	},
}

// addresses returns the addresses of a host, separated by a comma.
func addresses(a subnet.Attrs) string {
	if a.PublicIP.IsValid() && a.PublicIPv6.IsValid() {
		return a.PublicIP.String() + "," + a.PublicIPv6.String()
	}
	return a.HostAddr().String()
}
