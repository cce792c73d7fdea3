package cli

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// storeFlags are the flags of the store, with a time limit for all requests of
// one command.
type storeFlags struct {
	flags   store.Flags
	timeout time.Duration
}

func (s *storeFlags) register(fs *flag.FlagSet) {
	s.flags.Register(fs)
	fs.DurationVar(&s.timeout, "timeout", 10*time.Second, "`time` to wait for etcd")
}

// do opens the store, calls f with it and closes it. If publish is not nil and
// the store has no configuration, do writes publish.
func (s *storeFlags) do(ctx context.Context, publish []byte, f func(context.Context, store.Store) error) (err error) {
	if s.timeout <= 0 {
		return fmt.Errorf("-timeout %v leaves no time for etcd; use 10s, for example", s.timeout)
	}
	if err := s.flags.Complete(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
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
	slices.SortFunc(leases, func(a, b subnet.Lease) int { return a.Subnet.Compare(b.Subnet) })
	// etcd's v3 API lists keys without their expirations; the v2 API with them.
	if r, ok := st.Source.(subnet.Expirer); ok {
		err = r.FillExpirations(ctx, leases)
	}
	return leases, err
}
