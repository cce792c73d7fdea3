package cli

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// resolveLimit bounds each request that resolves a target.
const resolveLimit = 5 * time.Second

// destination is another host of the overlay.
type destination struct {
	Subnet   netip.Prefix `json:"subnet"`
	PublicIP netip.Addr   `json:"public_ip"`
	Hostname string       `json:"hostname,omitempty"`
	// other is the host's address of the other family; invalid if there is none.
	other netip.Addr
}

// isAt reports whether a is an address of the host.
func (d destination) isAt(a netip.Addr) bool { return d.PublicIP == a || d.other == a }

func (d destination) host() string {
	if d.Hostname == "" {
		return d.PublicIP.String()
	}
	return fmt.Sprintf("%v (%s)", d.PublicIP, d.Hostname)
}

// target is a destination with the addresses to ping there.
type target struct {
	destination
	addrs  []netip.Addr // any of them may reply
	source netip.Addr
	mtu    int // the largest packet of containers, in bytes
}

// resolver finds the target for a name or an address. The daemon knows its
// peers; the store knows the hosts' names too.
type resolver struct {
	status     *statusClient
	store      *storeFlags
	subnetFile *string
}

func newResolver(fs *flag.FlagSet) *resolver {
	store := newStoreFlagsLimited(fs, resolveLimit)
	return &resolver{store.status, store, subnetFileFlag(fs)}
}

// membership is this host's part of the overlay.
type membership struct {
	lease subnet.Lease // the addresses are zero if unknown
	mtu   int
	peers []destination
}

// membership reads the daemon's status, or subnet.env if no daemon answers.
func (r *resolver) membership(ctx context.Context) (membership, error) {
	report, _, err := r.status.report(ctx)
	if err == nil && report.Lease != nil && report.Backend != nil {
		m := membership{mtu: report.Backend.MTU, lease: subnet.Lease{Subnet: report.Lease.Subnet, IPv6Subnet: report.Lease.IPv6Subnet,
			Attrs: subnet.Attrs{PublicIP: report.Node.PublicIP, PublicIPv6: report.Node.PublicIPv6}}}
		for _, p := range report.Backend.Peers {
			m.peers = append(m.peers, destination{Subnet: p.Subnet, PublicIP: p.PublicIP})
		}
		return m, nil
	}
	env, failed := subnetfile.Read(*r.subnetFile)
	if failed != nil {
		return membership{}, errors.Join(errors.New("this host has no subnet"), err, failed)
	}
	return membership{lease: subnet.Lease{Subnet: env.Subnet, IPv6Subnet: env.IPv6Subnet}, mtu: env.MTU}, nil
}

// resolve returns the target for a host's name, its public IP, its subnet or an
// address in its subnet.
func (r *resolver) resolve(ctx context.Context, name string) (target, error) {
	self, err := r.membership(ctx)
	if err != nil {
		return target{}, err
	}
	match, err := addressMatcher(name, self)
	if err != nil {
		return target{}, err
	}
	t := target{mtu: self.mtu}
	isName, hosts := match == nil, self.peers
	var failed error
	if isName || !slices.ContainsFunc(hosts, match) {
		hosts, failed = r.leases(ctx)
	}
	if isName {
		match = func(d destination) bool { return strings.EqualFold(d.Hostname, name) }
	}
	if isName && !slices.ContainsFunc(hosts, match) {
		// Other implementations of flannel publish no host name.
		var unknown error
		hosts = append(self.peers, hosts...)
		match, unknown = dnsMatcher(ctx, name)
		failed = errors.Join(failed, unknown)
	}
	// Another host may have the same name as this one.
	others := slices.DeleteFunc(slices.Clone(hosts), func(d destination) bool { return d.Subnet == self.lease.SubnetOf(inet.Of(d.Subnet.Addr())) })
	if addr, err := netip.ParseAddr(name); err == nil { // the host's subnet of that family, if there is one
		slices.SortStableFunc(others, func(a, b destination) int {
			return cmp.Compare(int(inet.Of(a.Subnet.Addr())^inet.Of(addr)), int(inet.Of(b.Subnet.Addr())^inet.Of(addr)))
		})
	}
	if i := slices.IndexFunc(others, match); i >= 0 {
		f := inet.Of(others[i].Subnet.Addr())
		if !self.lease.SubnetOf(f).IsValid() {
			return target{}, fmt.Errorf("this host has no %v subnet to ping %v from", f, others[i].Subnet)
		}
		t.source = self.lease.SubnetOf(f).Addr()
		return t.at(others[i], name), nil
	}
	if slices.ContainsFunc(hosts, match) {
		return target{}, fmt.Errorf("%q is this host: the overlay does not carry its packets", name)
	}
	return target{}, errors.Join(fmt.Errorf("no host of the overlay has %q; flannel leases lists the hosts", name), failed)
}

func (t target) at(d destination, name string) target {
	t.destination, t.addrs = d, echoAddrs(d.Subnet)
	if addr, err := netip.ParseAddr(name); err == nil && d.Subnet.Contains(addr) {
		t.addrs = []netip.Addr{addr}
	}
	return t
}

// addressMatcher returns a function that reports whether a subnet or an address
// belongs to a host. It returns nil if name is neither.
func addressMatcher(name string, self membership) (func(destination) bool, error) {
	if strings.Contains(name, "/") {
		want, err := parseSubnet(name)
		if err == nil && want == self.lease.SubnetOf(inet.Of(want.Addr())) {
			err = fmt.Errorf("%v is the subnet of this host: the overlay does not carry its packets", want)
		}
		return func(d destination) bool { return d.Subnet == want }, err
	}
	addr, err := netip.ParseAddr(name)
	switch {
	case err != nil:
		return nil, nil
	case self.lease.SubnetOf(inet.Of(addr)).Contains(addr), addr == self.lease.Attrs.Addr(inet.Of(addr)):
		return nil, fmt.Errorf("%v is an address of this host: the overlay does not carry its packets", addr)
	}
	return func(d destination) bool { return d.isAt(addr) || d.Subnet.Contains(addr) }, nil
}

func (r *resolver) leases(ctx context.Context) (all []destination, err error) {
	err = r.store.do(ctx, nil, func(ctx context.Context, st store.Store) error {
		leases, _, err := st.List(ctx)
		for _, f := range inet.Families { // of a host's subnets, the IPv4 one is found first
			for _, l := range leases {
				if p := l.SubnetOf(f); p.IsValid() {
					d := destination{Subnet: p, PublicIP: l.Attrs.Addr(f), Hostname: l.Attrs.Hostname, other: l.Attrs.Addr(f.Other())}
					if !d.PublicIP.IsValid() {
						d.PublicIP, d.other = d.other, netip.Addr{}
					}
					all = append(all, d)
				}
			}
		}
		return err
	})
	return all, err
}

// dnsMatcher returns a function that reports whether a host's public IP is an
// address of the name in DNS or /etc/hosts.
func dnsMatcher(ctx context.Context, name string) (func(destination) bool, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	return func(d destination) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return d.isAt(a.Unmap()) })
	}, err
}
