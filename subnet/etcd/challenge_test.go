package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// A second host with the address of a living one fails with an error that names
// the first. The first keeps its lease, and peers receive no event.
func TestAddressInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		first := node("192.0.2.1", "a")
		first.BackendType, first.BackendData = "vxlan", json.RawMessage(`{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`)
		other := node("192.0.2.2", "b")
		other.BackendType = "vxlan"
		peer := startNode(t, fake, other)
		owner := startNode(t, fake, first)
		for len(peer.Events) > 0 {
			<-peer.Events
		}
		_, err := newManager(t, fake, network16).Acquire(t.Context(), node("192.0.2.1", "c"), subnet.Hints{})
		if !errors.Is(err, subnet.ErrAddressInUse) {
			t.Fatalf("error is %v, want ErrAddressInUse", err)
		}
		for _, word := range []string{"node a", "host-a", owner.Lease.Subnet.String(), "-public-ip"} {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%q does not name %q", err, word)
			}
		}
		synctest.Wait()
		for _, l := range fake.Leases(t) {
			if l.Subnet == owner.Lease.Subnet && !l.Attrs.Equal(first) {
				t.Errorf("the owner's lease says %+v", l.Attrs)
			}
		}
		if len(peer.Events) > 0 {
			t.Errorf("a peer was told %v", <-peer.Events)
		}
		owner.End(t)
		peer.End(t)
	})
}

// A reinstalled host without its old state takes over the lease of its address. If
// the lease has no NodeID, it does so at once.
func TestTakeOverFromTheDead(t *testing.T) {
	for name, test := range map[string]struct {
		old  subnet.Attrs
		wait time.Duration
	}{
		"installed anew": {node("192.0.2.1", "a"), 5 * time.Second},
		"classic":        {attrs("192.0.2.1"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				old := startNode(t, fake, test.old)
				old.End(t)
				began := time.Now()
				h := startNode(t, fake, node("192.0.2.1", "c"))
				if h.Lease.Subnet != old.Lease.Subnet || time.Since(began) != test.wait {
					t.Errorf("got %v after %v, want %v after %v", h.Lease.Subnet, time.Since(began), old.Lease.Subnet, test.wait)
				}
				if l := fake.OnlyLease(t); !l.Attrs.Equal(node("192.0.2.1", "c")) {
					t.Errorf("the lease says %+v", l.Attrs)
				}
				h.End(t)
			})
		})
	}
}

// A host was cut off from the store, and another with its address has taken its
// lease. The host fails with an error that names the other, and writes nothing.
func TestOwnerThatWasCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		old := startNode(t, fake, node("192.0.2.1", "a"))
		if _, err := fake.Update(t.Context(), fake.OnlyLease(t), node("192.0.2.1", "c"), ttl); err != nil {
			t.Fatal(err)
		}
		err := <-old.Errs
		if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "host-c") {
			t.Errorf("the old owner ended with %v", err)
		}
		if l := fake.OnlyLease(t); l.Attrs.NodeID != "c" {
			t.Errorf("the lease is %+v again", l.Attrs)
		}
		old.Stop()
	})
}

// A copy of a living host's disk is detected, and gets another subnet with another
// identity. A host that has moved to another address keeps its subnet.
func TestSameNodeAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		h := startNode(t, fake, node("192.0.2.1", "a"))
		m := newManager(t, fake, network16)
		_, err := m.Acquire(t.Context(), node("192.0.2.2", "a"), subnet.Hints{Previous: h.Lease.Subnet})
		if !errors.Is(err, subnet.ErrCloned) || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Fatalf("error is %v, want ErrCloned", err)
		}
		l, err := m.Acquire(t.Context(), node("192.0.2.2", "b"), subnet.Hints{Previous: h.Lease.Subnet})
		if err != nil || l.Subnet == h.Lease.Subnet {
			t.Errorf("the copy got %v, %v", l, err)
		}
		h.End(t)
		if err := fake.Delete(t.Context(), l); err != nil {
			t.Fatal(err)
		}

		moved := startNode(t, fake, node("192.0.2.3", "a"))
		if moved.Lease.Subnet != h.Lease.Subnet {
			t.Errorf("got %v after the change of address, had %v", moved.Lease.Subnet, subnet.Hints{Previous: h.Lease.Subnet})
		}
		if l := fake.OnlyLease(t); !l.Attrs.Equal(node("192.0.2.3", "a")) {
			t.Errorf("the lease says %+v", l.Attrs)
		}
		moved.End(t)
	})
}

// Of two hosts that start at once with the address of a dead one, one gets the
// lease.
func TestTwoChallenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		startNode(t, fake, node("192.0.2.1", "a")).End(t)
		results := make(chan error, 2)
		for _, id := range []string{"b", "c"} {
			m := newManager(t, fake, network16)
			go func() {
				l, err := m.Acquire(t.Context(), node("192.0.2.1", id), subnet.Hints{})
				results <- err
				if err == nil {
					h := subnettest.RunHost(t, fake, m, l)
					t.Cleanup(h.Stop)
				}
			}()
		}
		one, two := <-results, <-results
		if one != nil || !errors.Is(two, subnet.ErrAddressInUse) {
			t.Errorf("the first ended with %v, the second with %v", one, two)
		}
	})
}

// After a crash between Create and verification, the next start yields, whatever it
// knows of an earlier run: the older lease is another host's.
func TestCrashBeforeVerify(t *testing.T) {
	for name, prev := range map[string]netip.Prefix{"never ready": {}, "was ready": prefix("10.5.16.0/24")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				fake.Put("10.5.16.0-20", value("192.0.2.9"), time.Hour)
				fake.Put("10.5.16.0-24", value("192.0.2.1"), time.Hour)
				l, err := newManager(t, fake, network16).Acquire(t.Context(), us, subnet.Hints{Previous: prev})
				if err != nil || l.Subnet.Overlaps(prefix("10.5.16.0/20")) {
					t.Errorf("got %v, %v", l, err)
				}
			})
		})
	}
}

// A dead host's address comes to another one, which has a lease of its own: each
// keeps its subnet.
func TestAddressOfTheDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		one, two := startNode(t, fake, node("192.0.2.1", "a")), startNode(t, fake, node("192.0.2.2", "b"))
		one.End(t)
		two.End(t)
		again := startNode(t, fake, node("192.0.2.2", "a"))
		if again.Lease.Subnet != one.Lease.Subnet {
			t.Errorf("host a got %v, had %v", again.Lease.Subnet, one.Lease.Subnet)
		}
		moved := startNode(t, fake, node("192.0.2.3", "b"))
		if moved.Lease.Subnet != two.Lease.Subnet || !moved.Holds(t) || !again.Holds(t) {
			t.Errorf("host b got %v, had %v; leases %v", moved.Lease.Subnet, two.Lease.Subnet, fake.Leases(t))
		}
		again.End(t)
		moved.End(t)
	})
}

// The lease of a host has ended while it was off. With a dead host's address it asks
// for its former subnet, not for the dead one's.
func TestAddressOfTheDeadAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		dead := startNode(t, fake, node("192.0.2.2", "b"))
		dead.End(t)
		previous := prefix("10.5.7.0/24")
		l, err := newManager(t, fake, network16).Acquire(t.Context(), node("192.0.2.2", "a"), subnet.Hints{Previous: previous})
		if err != nil || l.Subnet != previous {
			t.Errorf("got %v, %v; want %v", l, err, previous)
		}
	})
}

// A host has a lease of its own, and the address of a living host: it refuses.
func TestAddressOfTheLiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		startNode(t, fake, node("192.0.2.1", "a")).End(t)
		living := startNode(t, fake, node("192.0.2.2", "b"))
		_, err := newManager(t, fake, network16).Acquire(t.Context(), node("192.0.2.2", "a"), subnet.Hints{})
		if !errors.Is(err, subnet.ErrAddressInUse) || !strings.Contains(err.Error(), "-public-ip") || !living.Holds(t) {
			t.Errorf("got %v, want ErrAddressInUse with the remedy; leases %v", err, fake.Leases(t))
		}
		living.End(t)
	})
}

// Two hosts that swap their addresses keep their subnets, whether one starts after
// the other or both at once.
func TestSwappedAddresses(t *testing.T) {
	for _, apart := range []time.Duration{0, 100 * time.Millisecond, 3 * time.Second, 7 * time.Second, time.Minute} {
		t.Run(apart.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				one, two := startNode(t, fake, node("192.0.2.1", "a")), startNode(t, fake, node("192.0.2.2", "b"))
				one.End(t)
				two.End(t)
				began := time.Now()
				var wg sync.WaitGroup
				for i, a := range []subnet.Attrs{node("192.0.2.2", "a"), node("192.0.2.1", "b")} {
					before := []*subnettest.Host{one, two}[i].Lease.Subnet
					wg.Go(func() {
						time.Sleep(time.Duration(i) * apart)
						m := newManager(t, fake, network16)
						l, err := m.Acquire(t.Context(), a, subnet.Hints{Previous: before})
						if err != nil || l.Subnet != before {
							t.Errorf("host %s got %v, %v; had %v", a.NodeID, l, err, before)
							return
						}
						ctx, stop := context.WithCancel(t.Context())
						t.Cleanup(stop)
						go m.Renew(ctx, l)                          //nolint:errcheck // ends with ctx
						go m.Watch(ctx, l, func([]subnet.Event) {}) //nolint:errcheck // ends with ctx
					})
				}
				wg.Wait()
				if took := time.Since(began); took > apart+25*time.Second {
					t.Errorf("it took %v", took)
				}
				if leases := fake.Leases(t); len(leases) != 2 {
					t.Errorf("leases %v, want two", leases)
				}
			})
		})
	}
}
