package subnet_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// larger and dual are keys that overlap h's and differ from it.
func larger(h *subnettest.Host) string {
	return subnet.Lease{Subnet: prefix("10.5.0.0/16")}.Key()
}

func dual(h *subnettest.Host) string {
	return subnet.Lease{Subnet: h.Lease.Subnet, IPv6Subnet: prefix("fd00:0:0:17::/64")}.Key()
}

// ended returns the result of h's Renew, nil if it goes on for a day.
func ended(h *subnettest.Host) error {
	select {
	case err := <-h.Errs:
		return err
	case <-time.After(ttl):
		h.Stop()
		return nil
	}
}

// A running host sees that another lease overlaps its own: the younger one yields.
func TestOverlapSeen(t *testing.T) {
	for name, key := range map[string]func(*subnettest.Host) string{"larger": larger, "dual-stack": dual} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				h := startHost(t, fake)
				fake.Put(key(h), value("192.0.2.9"), 1000*time.Hour) // younger than ours
				time.Sleep(3 * ttl)
				if !h.Holds(t) {
					t.Fatal("the older lease has yielded")
				}
				// Now ours is the younger one.
				fake.Remove(h.Lease.Key())
				fake.Put(h.Lease.Key(), value("192.0.2.1"), time.Hour)
				err := ended(h)
				if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "192.0.2.9") {
					t.Errorf("ended with %v, want ErrLost that names 192.0.2.9", err)
				}
				if l := fake.OnlyLease(t); l.Key() != key(h) {
					t.Errorf("the store has %v, want the older lease alone", l)
				}
			})
		})
	}
}

// The value of an older key that overlaps ours becomes readable while we run: the
// watch sees that, and ours yields at once.
func TestOverlapBecomesReadable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		older := subnet.Lease{Subnet: prefix("10.5.0.0/16")}.Key()
		fake.Put(older, []byte("?"), 1000*time.Hour)
		h := startHost(t, fake)
		time.Sleep(time.Hour)
		if !h.Holds(t) {
			t.Fatal("a key without a lease has an effect")
		}
		fake.Put(older, value("192.0.2.9"), 1000*time.Hour)
		began := time.Now()
		if err := ended(h); !errors.Is(err, subnet.ErrLost) || time.Since(began) > time.Minute {
			t.Errorf("ended with %v after %v, want ErrLost at once", err, time.Since(began))
		}
	})
}

// Renew creates a vanished key again. Another host has created an overlapping one
// between Renew's look and its creation.
func TestRepairVerifies(t *testing.T) {
	for name, key := range map[string]func(*subnettest.Host) string{"larger": larger, "dual-stack": dual} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				h := startHost(t, fake)
				entered, leave := make(chan struct{}), make(chan struct{})
				fake.Inject(subnettest.OpCreate, subnettest.Fault{Entered: entered, Wait: leave})
				fake.Remove(h.Lease.Key())
				<-entered
				fake.Put(key(h), value("192.0.2.9"), time.Hour)
				close(leave)
				if err := ended(h); !errors.Is(err, subnet.ErrLost) {
					t.Errorf("ended with %v, want ErrLost", err)
				}
				if l := fake.OnlyLease(t); l.Key() != key(h) {
					t.Errorf("the store has %v, want the older lease alone", l)
				}
			})
		})
	}
}

// Two hosts whose overlapping keys vanished create them again at once: one stays.
func TestRepairTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.SetConfig([]byte(network16))
		leave := make(chan struct{})
		fake.Inject(subnettest.OpCreate, subnettest.Fault{Wait: leave}, subnettest.Fault{Wait: leave})
		ends := time.Now().Add(time.Hour)
		hosts := []*subnettest.Host{
			adoptHost(t, fake, subnet.Lease{Subnet: prefix("10.5.16.0/20"), Attrs: attrs("192.0.2.1"), Expiration: ends}, nil),
			adoptHost(t, fake, subnet.Lease{Subnet: prefix("10.5.17.0/24"), Attrs: attrs("192.0.2.2"), Expiration: ends}, nil),
		}
		close(leave)
		time.Sleep(time.Minute)
		if leases := fake.Leases(t); len(leases) != 1 {
			t.Errorf("the store has %v, want one lease", leases)
		}
		lost := 0
		for _, h := range hosts {
			select {
			case err := <-h.Errs:
				lost++
				if !errors.Is(err, subnet.ErrLost) {
					t.Errorf("ended with %v, want ErrLost", err)
				}
			default:
			}
		}
		if lost != 1 {
			t.Errorf("%d hosts yielded, want one", lost)
		}
	})
}

// The store gets another history in which another host's key has the revision of our
// last write: it is not ours, and is not written.
func TestEqualRevision(t *testing.T) {
	for _, noticed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			before := fake.Copy()
			h := startHost(t, fake)
			if !noticed {
				// The watch hangs, as that of a paused host.
				fake.Inject(subnettest.OpWatch, subnettest.Fault{Hang: true})
			}
			fake.Restore(before)
			fake.Put(h.Lease.Key(), value("192.0.2.9"), 1000*time.Hour)
			if l := fake.OnlyLease(t); l.Rev != h.Lease.Rev {
				t.Fatalf("the other lease is at %d, ours was at %d", l.Rev, h.Lease.Rev)
			}
			began := time.Now()
			err := ended(h)
			if took := time.Since(began); !errors.Is(err, subnet.ErrLost) || took > 2*time.Minute || noticed && took > 5*time.Second {
				t.Errorf("ended with %v after %v, want ErrLost", err, took)
			}
			if l := fake.OnlyLease(t); l.Attrs.PublicIP.String() != "192.0.2.9" {
				t.Errorf("the other host's lease became %v", l)
			}
		})
	}
}
