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
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// resolveLimit bounds each question about who is meant.
const resolveLimit = 5 * time.Second

// destination is another host of the overlay.
type destination struct {
	Subnet   netip.Prefix `json:"subnet"`
	PublicIP netip.Addr   `json:"public_ip"`
	Hostname string       `json:"hostname,omitempty"`
}

func (d destination) hostWords() string {
	if d.Hostname == "" {
		return d.PublicIP.String()
	}
	return fmt.Sprintf("%v (%s)", d.PublicIP, d.Hostname)
}

// target is what to ping there, and from where.
type target struct {
	destination
	addrs  []netip.Addr // those that may answer
	source netip.Addr
	mtu    int // the largest packet of containers, in bytes
}

// resolver finds out who is meant by a name or an address: the daemon knows
// its peers, the store also the hosts' names.
type resolver struct {
	status     statusSource
	store      storeSide
	subnetFile string
}

func (r *resolver) register(fs *flag.FlagSet) {
	r.status.register(fs)
	r.store.flags.Register(fs)
	r.store.timeout = resolveLimit
	fs.StringVar(&r.subnetFile, "subnet-file", "/run/flannel/subnet.env", "`file` that flannel has written")
}

// own is what the overlay is to this host.
type own struct {
	subnet   netip.Prefix
	publicIP netip.Addr // zero: not known
	mtu      int
	peers    []destination
}

// own asks the daemon, or reads what it has written.
func (r *resolver) own(ctx context.Context) (own, error) {
	report, _, err := r.status.report(ctx)
	if err == nil && report.Lease != nil && report.Backend != nil {
		o := own{subnet: report.Lease.Subnet, publicIP: report.Node.PublicIP, mtu: report.Backend.MTU}
		for _, p := range report.Backend.Peers {
			o.peers = append(o.peers, destination{Subnet: p.Subnet, PublicIP: p.PublicIP})
		}
		return o, nil
	}
	env, failed := subnetfile.Read(r.subnetFile)
	if failed != nil {
		return own{}, errors.Join(errors.New("this host has no subnet: is the daemon running?"), err, failed)
	}
	return own{subnet: env.Subnet, mtu: env.MTU}, nil
}

// resolve says whom to ping for a host's name, its public IP, its subnet or an
// address in that.
func (r *resolver) resolve(ctx context.Context, who string) (target, error) {
	self, err := r.own(ctx)
	if err != nil {
		return target{}, err
	}
	match, err := matcher(who, self)
	if err != nil {
		return target{}, err
	}
	t := target{source: self.subnet.Addr(), mtu: self.mtu}
	if match != nil {
		if i := slices.IndexFunc(self.peers, match); i >= 0 {
			return t.at(self.peers[i], who), nil
		}
	}
	leases, failed := r.leases(ctx)
	if match == nil {
		match = func(d destination) bool { return strings.EqualFold(d.Hostname, who) }
	}
	if !slices.ContainsFunc(leases, match) && !isAddress(who) {
		// A flannel of another kind tells no name with its lease.
		var unknown error
		leases = append(self.peers, leases...)
		match, unknown = lookUp(ctx, who)
		failed = errors.Join(failed, unknown)
	}
	// Hosts may share a name, and then another is meant.
	others := slices.DeleteFunc(slices.Clone(leases), func(d destination) bool { return d.Subnet == self.subnet })
	if i := slices.IndexFunc(others, match); i >= 0 {
		return t.at(others[i], who), nil
	}
	if slices.ContainsFunc(leases, match) {
		return target{}, fmt.Errorf("%q is this host itself: its packets stay here", who)
	}
	return target{}, errors.Join(fmt.Errorf("no host of the overlay is %q or has it; flannel leases lists them", who), failed)
}

// at is the target with who it is.
func (t target) at(d destination, who string) target {
	t.destination = d
	if addr, err := netip.ParseAddr(who); err == nil && d.Subnet.Contains(addr) {
		t.addrs = []netip.Addr{addr}
		return t
	}
	t.addrs = answering(d.Subnet)
	return t
}

// answering are the addresses of a subnet that may answer: its first, which
// flannel's device has, and the second, which the containers' bridge has.
func answering(s netip.Prefix) []netip.Addr {
	if s.Bits() == 32 {
		return []netip.Addr{s.Addr()}
	}
	return []netip.Addr{s.Addr(), s.Addr().Next()}
}

func isAddress(s string) bool { return strings.Contains(s, "/") || net.ParseIP(s) != nil }

// matcher tells the host that a subnet or an address belongs to; nil if who is
// a name.
func matcher(who string, self own) (func(destination) bool, error) {
	if !isAddress(who) {
		return nil, nil
	}
	if strings.Contains(who, "/") {
		want, err := parseSubnet(who)
		if err == nil && want == self.subnet {
			err = fmt.Errorf("%v is this host's own subnet: its packets stay here", want)
		}
		return func(d destination) bool { return d.Subnet == want }, err
	}
	addr, err := netip.ParseAddr(who)
	switch {
	case err != nil || !addr.Is4():
		return nil, fmt.Errorf("%q is not an IPv4 address", who)
	case self.subnet.Contains(addr), addr == self.publicIP:
		return nil, fmt.Errorf("%v is this host's own: its packets stay here", addr)
	}
	return func(d destination) bool { return d.PublicIP == addr || d.Subnet.Contains(addr) }, nil
}

// leases asks the store.
func (r *resolver) leases(ctx context.Context) (all []destination, err error) {
	err = r.store.do(ctx, nil, func(ctx context.Context, st store.Store) error {
		leases, _, err := st.List(ctx)
		for _, l := range leases {
			all = append(all, destinationOf(l))
		}
		return err
	})
	return all, err
}

func destinationOf(l subnet.Lease) destination {
	return destination{l.Subnet, l.Attrs.PublicIP, l.Attrs.Hostname}
}

// lookUp tells the host that has one of a name's addresses, as DNS or
// /etc/hosts have them; none if the name is not known there.
func lookUp(ctx context.Context, name string) (func(destination) bool, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", name)
	return func(d destination) bool {
		return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == d.PublicIP })
	}, err
}
