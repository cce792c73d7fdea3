package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet/store"
)

// resolveLimit bounds each request that resolves a target.
const resolveLimit = 5 * time.Second

// destination is another host of the overlay.
type destination struct {
	Subnet   netip.Prefix `json:"subnet"`
	PublicIP netip.Addr   `json:"public_ip"`
	Hostname string       `json:"hostname,omitempty"`
}

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
	subnet   netip.Prefix
	publicIP netip.Addr // zero: unknown
	mtu      int
	peers    []destination
}

// membership reads the daemon's status, or subnet.env if no daemon answers.
func (r *resolver) membership(ctx context.Context) (membership, error) {
	report, _, err := r.status.report(ctx)
	if err == nil && report.Lease != nil && report.Backend != nil {
		m := membership{subnet: report.Lease.Subnet, publicIP: report.Node.PublicIP, mtu: report.Backend.MTU}
		for _, p := range report.Backend.Peers {
			m.peers = append(m.peers, destination{Subnet: p.Subnet, PublicIP: p.PublicIP})
		}
		return m, nil
	}
	env, failed := subnetfile.Read(*r.subnetFile)
	if failed != nil {
		return membership{}, errors.Join(errors.New("this host has no subnet: is the daemon running?"), err, failed)
	}
	return membership{subnet: env.Subnet, mtu: env.MTU}, nil
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
	t := target{source: self.subnet.Addr(), mtu: self.mtu}
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
	others := slices.DeleteFunc(slices.Clone(hosts), func(d destination) bool { return d.Subnet == self.subnet })
	if i := slices.IndexFunc(others, match); i >= 0 {
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
		if err == nil && want == self.subnet {
			err = fmt.Errorf("%v is the subnet of this host: the overlay does not carry its packets", want)
		}
		return func(d destination) bool { return d.Subnet == want }, err
	}
	addr, err := netip.ParseAddr(name)
	switch {
	case err != nil:
		return nil, nil
	case !addr.Is4():
		return nil, fmt.Errorf("%q is not an IPv4 address", name)
	case self.subnet.Contains(addr), addr == self.publicIP:
		return nil, fmt.Errorf("%v is an address of this host: the overlay does not carry its packets", addr)
	}
	return func(d destination) bool { return d.PublicIP == addr || d.Subnet.Contains(addr) }, nil
}

func (r *resolver) leases(ctx context.Context) (all []destination, err error) {
	err = r.store.do(ctx, nil, func(ctx context.Context, st store.Store) error {
		leases, _, err := st.List(ctx)
		for _, l := range leases {
			all = append(all, destination{l.Subnet, l.Attrs.PublicIP, l.Attrs.Hostname})
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
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	return func(d destination) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == d.PublicIP })
	}, err
}
