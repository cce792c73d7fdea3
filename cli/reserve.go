package cli

import (
	"context"
	"flag"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

var reserveCommand = command{
	name: "reserve", args: "SUBNET [IP]", summary: "reserve a subnet for one host, without expiry",
	detail: "IP is the host's public IP. If a host has a lease of the subnet, the reservation is that host's,\nand IP may be left out.",
	json:   "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		s := newStoreFlags(fs)
		return func(ctx context.Context, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return flag.ErrHelp
			}
			want, err := parseSubnet(args[0])
			if err != nil {
				return err
			}
			var ip netip.Addr
			if len(args) == 2 {
				if ip, err = netip.ParseAddr(args[1]); err != nil || !subnet.IsHostAddr(inet.Of(ip), ip) {
					return fmt.Errorf("%q is not the address of a host", args[1])
				}
			}
			return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
				l, changed, err := reserve(ctx, st, want, ip)
				if err != nil {
					return err
				}
				already := ""
				if !changed {
					already = " already"
				}
				return p.print(leaseChange{changed, newLeaseJSON(l)}, "%v is reserved for %v%s\n", want, l.Attrs.HostAddr(), already)
			})
		}
	},
}

// reserve makes want a reservation. changed is false if want was one before.
func reserve(ctx context.Context, st store.Store, want netip.Prefix, ip netip.Addr) (l subnet.Lease, changed bool, err error) {
	text, err := st.Config(ctx)
	if err != nil {
		return l, false, err
	}
	config, err := subnet.ParseConfig(text)
	if err != nil {
		return l, false, fmt.Errorf("use network configuration: %w", err)
	}
	f := inet.Of(want.Addr())
	r := config.RangeOf(f)
	switch {
	case !r.Enabled():
		return l, false, fmt.Errorf("%v is a subnet of %v, which the network does not carry", want, f)
	case want.Bits() != r.SubnetLen || !r.Network.Contains(want.Addr()):
		return l, false, fmt.Errorf("%v is not a /%d of the network %v", want, r.SubnetLen, r.Network)
	}
	leases, _, err := st.List(ctx)
	if err != nil {
		return l, false, err
	}
	l = subnet.Lease{}.WithSubnet(want)
	if ip.IsValid() {
		l.Attrs.SetFamily(inet.Of(ip), ip, nil)
	}
	for _, have := range leases {
		p := have.SubnetOf(f)
		switch {
		case p == want && ip.IsValid() && have.Attrs.Addr(inet.Of(ip)) != ip:
			return l, false, fmt.Errorf("subnet is taken: %v; stop flannel on that host and use \"flannel release\" first", have)
		case p == want && have.Reserved:
			return have, false, nil
		case p == want: // with both subnets of the host
			l = have
		case p.Overlaps(want):
			return l, false, fmt.Errorf("%v overlaps %v", want, have)
		}
	}
	if !l.Attrs.HostAddr().IsValid() {
		return l, false, fmt.Errorf("no lease for %v: add the public IP of the host to reserve it for", want)
	}
	l, err = st.Reserve(ctx, l)
	return l, err == nil, err
}
