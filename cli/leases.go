package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

var leasesCommand = command{
	name: "leases", summary: "list who has which subnet, from etcd",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s storeSide
		s.register(fs)
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context, _ []string) error {
			return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
				leases, err := listWithEnds(ctx, st)
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(p.Stdout, jsonLeases(leases))
				}
				rows := [][]string{{"SUBNET", "HOST", "NAME", "UNTIL", "BACKEND", "DATA"}}
				for _, l := range leases {
					rows = append(rows, []string{l.Subnet.String(), l.Attrs.PublicIP.String(), l.Attrs.Hostname,
						untilWords(l.Expiration, l.Reserved), l.Attrs.BackendType, string(l.Attrs.BackendData)})
				}
				return table(p.Stdout, rows)
			})
		}
	},
}

// listWithEnds is all leases in the order of their subnets, and when they end.
func listWithEnds(ctx context.Context, st store.Store) ([]subnet.Lease, error) {
	leases, _, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(leases, func(a, b subnet.Lease) int { return a.Subnet.Compare(b.Subnet) })
	// etcd's v3 API does not tell the end with the key; the v2 API does.
	if r, ok := st.Registry.(subnet.Ender); ok {
		err = r.Ends(ctx, leases)
	}
	return leases, err
}

// leaseJSON is a lease in what "leases -json" prints.
type leaseJSON struct {
	Subnet      netip.Prefix    `json:"subnet"`
	PublicIP    netip.Addr      `json:"public_ip"`
	Hostname    string          `json:"hostname,omitempty"`
	NodeID      string          `json:"node_id,omitempty"`
	ExpiresAt   time.Time       `json:"expires_at,omitzero"`
	Reserved    bool            `json:"reserved"`
	BackendType string          `json:"backend_type,omitempty"`
	BackendData json.RawMessage `json:"backend_data,omitempty"`
}

func jsonLeases(leases []subnet.Lease) []leaseJSON {
	list := make([]leaseJSON, 0, len(leases))
	for _, l := range leases {
		list = append(list, jsonLease(l))
	}
	return list
}

func jsonLease(l subnet.Lease) leaseJSON {
	return leaseJSON{l.Subnet, l.Attrs.PublicIP, l.Attrs.Hostname, l.Attrs.NodeID,
		l.Expiration, l.Reserved, l.Attrs.BackendType, l.Attrs.BackendData}
}

// leaseChange is what "reserve -json" and "release -json" print: the lease as
// it is now, or was before it was released.
type leaseChange struct {
	Changed bool      `json:"changed"`
	Lease   leaseJSON `json:"lease"`
}

var reserveCommand = command{
	name: "reserve", args: "SUBNET [IP]", summary: "keep a subnet for one host, without an end",
	detail: "IP is the host's public IP. Where a lease is there already, the host that holds it keeps it,\nand IP may be left out.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s storeSide
		s.register(fs)
		asJSON := fs.Bool("json", false, "print JSON")
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
				if ip, err = netip.ParseAddr(args[1]); err != nil || !ip.Is4() {
					return fmt.Errorf("%q is not the IPv4 address of a host", args[1])
				}
			}
			return s.do(ctx, nil, func(ctx context.Context, st store.Store) error {
				l, changed, err := reserve(ctx, st, want, ip)
				if err != nil {
					return err
				}
				if *asJSON {
					return printJSON(p.Stdout, leaseChange{Changed: changed, Lease: jsonLease(l)})
				}
				already := ""
				if !changed {
					already = " already"
				}
				_, err = fmt.Fprintf(p.Stdout, "%v is reserved for %v%s\n", want, l.Attrs.PublicIP, already)
				return err
			})
		}
	},
}

// reserve makes want a reservation, and says whether it has not been one.
func reserve(ctx context.Context, st store.Store, want netip.Prefix, ip netip.Addr) (l subnet.Lease, changed bool, err error) {
	text, err := st.Config(ctx)
	if err != nil {
		return l, false, err
	}
	config, err := subnet.ParseConfig(text)
	if err != nil {
		return l, false, fmt.Errorf("use network configuration: %w", err)
	}
	if want.Bits() != config.SubnetLen || !config.Network.Contains(want.Addr()) {
		return l, false, fmt.Errorf("%v is not a /%d of the network %v", want, config.SubnetLen, config.Network)
	}
	leases, _, err := st.List(ctx)
	if err != nil {
		return l, false, err
	}
	l = subnet.Lease{Subnet: want, Attrs: subnet.Attrs{PublicIP: ip}}
	for _, have := range leases {
		switch {
		case have.Subnet == want && ip.IsValid() && have.Attrs.PublicIP != ip:
			return l, false, fmt.Errorf("%v has it; stop that host and \"flannel release\" it first", have)
		case have.Subnet == want && have.Reserved:
			return have, false, nil
		case have.Subnet == want:
			l = have
		case have.Subnet.Overlaps(want):
			return l, false, fmt.Errorf("%v overlaps %v", want, have)
		}
	}
	if !l.Attrs.PublicIP.IsValid() {
		return l, false, fmt.Errorf("nobody has %v: say the public IP of the host that is to have it", want)
	}
	l, err = st.Reserve(ctx, l)
	return l, err == nil, err
}

var releaseCommand = command{
	name: "release", args: "SUBNET", summary: "end a reservation, or with -lease a lease",
	detail: "A daemon that runs takes its subnet again at once, as a lease with an end.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		var s storeSide
		s.register(fs)
		leased := fs.Bool("lease", false, "delete a lease as well, as of a host that does not come back")
		asJSON := fs.Bool("json", false, "print JSON")
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
				i := slices.IndexFunc(leases, func(l subnet.Lease) bool { return l.Subnet == want })
				switch {
				case i < 0:
					return fmt.Errorf("nobody has %v", want)
				case !leases[i].Reserved && !*leased:
					return fmt.Errorf("%v is a lease and no reservation; -lease deletes it all the same", leases[i])
				}
				if err := st.Delete(ctx, leases[i]); err != nil {
					return err
				}
				if *asJSON {
					return printJSON(p.Stdout, leaseChange{Changed: true, Lease: jsonLease(leases[i])})
				}
				_, err = fmt.Fprintf(p.Stdout, "%v is released\n", leases[i])
				return err
			})
		}
	},
}

func parseSubnet(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if err != nil || !n.Addr().Is4() || n != n.Masked() {
		return n, fmt.Errorf("%q is not a subnet such as 10.5.72.0/24", s)
	}
	return n, nil
}
