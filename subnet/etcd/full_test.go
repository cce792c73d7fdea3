package etcd_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest"
)

// expirer is a store whose List leaves Expiration unset.
type expirer struct {
	*subnettest.Fake
	ask func(ctx context.Context, leases []subnet.Lease) error
}

func (e expirer) List(ctx context.Context) ([]subnet.Lease, subnet.Position, error) {
	leases, at, err := e.Fake.List(ctx)
	for i := range leases {
		leases[i].Expiration = time.Time{}
	}
	return leases, at, err
}

func (e expirer) FillExpirations(ctx context.Context, leases []subnet.Lease) error {
	return e.ask(ctx, leases)
}

// ErrFull comes with the size and use of the network, the end of the next lease if
// it is known, and the remedies.
func TestAcquireFull(t *testing.T) {
	const next = `the next lease to end, unless its host renews it, is that of 10.5.2.0/24 held by 192.0.2.9 (hostname "nine"), at 2000-01-01T01:00:00Z`
	for name, test := range map[string]struct {
		keyspace func(*subnettest.Fake) subnet.Keyspace
		next     bool
	}{
		"ends in the list": {func(f *subnettest.Fake) subnet.Keyspace { return f }, true},
		"ends to ask for": {func(f *subnettest.Fake) subnet.Keyspace {
			return expirer{f, func(ctx context.Context, leases []subnet.Lease) error {
				all, _, err := f.List(ctx)
				for i := range leases {
					for _, l := range all {
						if l.Subnet == leases[i].Subnet {
							leases[i].Expiration = l.Expiration
						}
					}
				}
				return err
			}}
		}, true},
		"no answer": {func(f *subnettest.Fake) subnet.Keyspace {
			return expirer{f, func(ctx context.Context, _ []subnet.Lease) error { <-ctx.Done(); return ctx.Err() }}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				fake.Put("10.5.1.0-24", value("192.0.2.8"), 2*time.Hour)
				fake.Put("10.5.2.0-24", []byte(`{"PublicIP":"192.0.2.9","Hostname":"nine"}`), time.Hour)
				fake.Put("10.5.3.0-24", value("192.0.2.7"), 0)
				fake.Put("10.5.4.0-24", []byte("{"), time.Minute)
				fake.Put("10.5.99.0-24", value("192.0.2.6"), time.Minute) // not one that is handed out
				began := time.Now()
				c := parseConfig(t, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.4.0"}`)
				_, err := etcd.NewHolder(test.keyspace(fake), c, ttl).Acquire(t.Context(), us, subnet.Hints{}, func(error) {})
				if took := time.Since(began); !errors.Is(err, subnet.ErrFull) || took > time.Second {
					t.Fatalf("got %v after %v, want ErrFull within a second", err, took)
				}
				for _, part := range []string{"4 subnets of /24, 10.5.1.0 to 10.5.4.0",
					"all taken: 2 leases, 1 reservation, 1 key that cannot be read", "flannel release -lease"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%v: it does not say %q", err, part)
					}
				}
				if got := strings.Contains(err.Error(), next); got != test.next {
					t.Errorf("%v: it says %q: %v, want %v", err, next, got, test.next)
				}
			})
		})
	}
}
