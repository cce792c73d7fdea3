package cli

import (
	"context"
	"flag"
	"fmt"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

var releaseCommand = command{
	name: "release", args: "SUBNET", summary: "delete a reservation, or with -lease a lease",
	detail: "A running daemon takes its subnet again at once, as a lease that expires.",
	json:   "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStoreFlags(fs)
		leased := fs.Bool("lease", false, "delete leases too, e.g. that of a host that does not return")
		return func(ctx context.Context, args []string) error {
			if len(args) != 1 {
				return flag.ErrHelp
			}
			want, err := parseSubnet(args[0])
			if err != nil {
				return err
			}
			return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
				leases, _, err := st.List(ctx)
				if err != nil {
					return err
				}
				i := slices.IndexFunc(leases, func(l subnet.Lease) bool { return l.SubnetOf(inet.Of(want.Addr())) == want })
				switch {
				case i < 0:
					return fmt.Errorf("no lease for %v", want)
				case !leases[i].Reserved && !*leased:
					return fmt.Errorf("%v is a lease, not a reservation; use -lease to delete it", leases[i])
				}
				if err := st.Delete(ctx, leases[i]); err != nil {
					return err
				}
				return p.print(leaseChange{true, newLeaseJSON(leases[i])}, "released %v\n", leases[i])
			})
		}
	},
}
