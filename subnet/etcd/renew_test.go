package etcd_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest"
)

// Renew creates a vanished key again, and looks at the leases once more before it
// succeeds: another host has created an overlapping one between its look and its
// creation. The watch is no part of it.
func TestRenewVerifies(t *testing.T) {
	for _, key := range []string{"10.5.0.0-16", "10.5.7.0-24&fd00:0:0:7::-64"} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			entered, leave := make(chan struct{}), make(chan struct{})
			fake.Inject(subnettest.OpCreate, subnettest.Fault{Entered: entered, Wait: leave})
			go func() {
				<-entered
				fake.Put(key, value("192.0.2.9"), time.Hour)
				close(leave)
			}()
			h := etcd.NewHolder(fake, parseConfig(t, network16), ttl)
			l, err := h.Renew(t.Context(), subnet.Lease{Subnet: prefix("10.5.7.0/24"), Attrs: us}, us, nil)
			if !errors.Is(err, subnet.ErrLost) {
				t.Errorf("%s: got %v, %v; want ErrLost", key, l, err)
			}
			if l := fake.OnlyLease(t); l.Key() != key {
				t.Errorf("the store has %v, want the older lease %s alone", l, key)
			}
		})
	}
}
