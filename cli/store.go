package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// storeFlags are the flags of the store, with a time limit for all requests of
// one command. If none of them is given, the running daemon's store is used.
type storeFlags struct {
	flags   store.Flags
	timeout time.Duration
	set     *flag.FlagSet // has the flags
	status  *statusClient
}

// newStoreFlags registers -timeout and the flags of newStoreFlagsLimited.
func newStoreFlags(fs *flag.FlagSet) *storeFlags {
	s := newStoreFlagsLimited(fs, 0)
	fs.DurationVar(&s.timeout, "timeout", 10*time.Second, "`time` to wait for etcd")
	return s
}

// newStoreFlagsLimited registers the flags of the store and of the status client.
func newStoreFlagsLimited(fs *flag.FlagSet, timeout time.Duration) *storeFlags {
	s := &storeFlags{timeout: timeout, set: fs, status: newStatusClient(fs)}
	s.flags.Register(fs)
	fs.Lookup("etcd-endpoints").Usage = "comma-separated `URLs` of the etcd cluster; without any flag of etcd, those of the running daemon, with its prefix and API"
	return s
}

// followDaemon takes endpoints, prefix and API from the daemon, unless a flag or
// variable of the store is given. The flags keep their defaults if no daemon answers.
func (s *storeFlags) followDaemon(ctx context.Context) {
	given := false
	s.set.Visit(func(f *flag.Flag) {
		given = given || strings.HasPrefix(f.Name, "etcd-") || strings.HasPrefix(f.Name, "kube")
	})
	if given {
		return
	}
	report, _, err := s.status.report(ctx)
	if err != nil || len(report.Store.Endpoints) == 0 {
		return
	}
	if report.Store.API == store.APIKubernetes {
		s.flags.Kube.Enabled = true // with the credentials of the pod, or a kubeconfig flag
		return
	}
	s.flags.Endpoints, s.flags.Prefix = report.Store.Endpoints, report.Store.Prefix
	if report.Store.API != "" {
		s.flags.API = report.Store.API
	}
}

// do opens the store, calls f with it and closes it. If publish is not nil and
// the store has no configuration, do writes publish.
func (s *storeFlags) do(ctx context.Context, publish []byte, f func(context.Context, store.Store) error) (err error) {
	if s.timeout <= 0 {
		return fmt.Errorf("-timeout %v leaves no time for etcd; use 10s, for example", s.timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	s.followDaemon(ctx)
	if err := s.flags.Complete(); err != nil {
		return err
	}
	c := s.flags.Config()
	c.Publish = publish
	st, err := store.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("open the store (-timeout %v): %w", s.timeout, err)
	}
	err = f(ctx, st)
	if closed := st.Close(); err == nil {
		err = closed
	}
	return err
}

// listLeases returns all leases in the order of their subnets, with their
// expirations.
func listLeases(ctx context.Context, st store.Store) ([]subnet.Lease, error) {
	leases, _, err := st.List(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(leases, func(a, b subnet.Lease) int {
		return cmp.Or(a.Subnet.Compare(b.Subnet), a.IPv6Subnet.Compare(b.IPv6Subnet))
	})
	// etcd's v3 API lists keys without their expirations; the v2 API with them.
	if r, ok := st.Source.(subnet.Expirer); ok {
		err = r.FillExpirations(ctx, leases)
	}
	return leases, err
}

type leaseJSON struct {
	Subnet        netip.Prefix    `json:"subnet"` // "" without an IPv4 subnet
	IPv6Subnet    netip.Prefix    `json:"ipv6_subnet,omitzero"`
	PublicIP      netip.Addr      `json:"public_ip"` // "" without an IPv4 address
	PublicIPv6    netip.Addr      `json:"public_ipv6,omitzero"`
	Hostname      string          `json:"hostname,omitempty"`
	NodeID        string          `json:"node_id,omitempty"`
	ExpiresAt     time.Time       `json:"expires_at,omitzero"`
	Reserved      bool            `json:"reserved"`
	BackendType   string          `json:"backend_type,omitempty"`
	BackendData   json.RawMessage `json:"backend_data,omitempty"`
	BackendV6Data json.RawMessage `json:"backend_v6_data,omitempty"`
}

func newLeaseJSON(l subnet.Lease) leaseJSON {
	a := l.Attrs
	return leaseJSON{l.Subnet, l.IPv6Subnet, a.PublicIP, a.PublicIPv6, a.Hostname, a.NodeID,
		l.Expiration, l.Reserved, a.BackendType, a.BackendData, a.BackendV6Data}
}

// leaseChange is the output of "reserve -json" and "release -json": the lease
// after the reservation, or before its release.
type leaseChange struct {
	Changed bool      `json:"changed"`
	Lease   leaseJSON `json:"lease"`
}
