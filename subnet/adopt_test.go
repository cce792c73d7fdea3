package subnet_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// A host that moved to another address recognises its lease by the former one and
// its NodeID, although the key was written meanwhile. A copy of its disk that has
// taken the lease is another host.
func TestAdoptAfterMove(t *testing.T) {
	former := netip.MustParseAddr("192.0.2.1")
	for name, test := range map[string]struct {
		holder subnet.Attrs
		ours   bool
	}{
		"claimed at the former address": {node("192.0.2.1", "a"), true},
		"taken by a copy":               {node("192.0.2.9", "a"), false},
		"another host's address now":    {node("192.0.2.1", "b"), false},
		"a host without identity":       {attrs("192.0.2.1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				fake.SetConfig([]byte(network16))
				created, err := fake.Create(t.Context(), subnet.Lease{Subnet: prefix("10.5.7.0/24"), Attrs: node("192.0.2.1", "a")}, ttl)
				if err != nil {
					t.Fatal(err)
				}
				test.holder.Challenge = "someone"
				if _, err := fake.Update(t.Context(), created, test.holder, ttl); err != nil {
					t.Fatal(err)
				}
				created.Attrs = node("192.0.2.3", "a")
				m := newManager(t, fake, network16)
				m.Adopt(created, former)
				h := subnettest.RunHost(t, fake, m, created)
				defer h.Stop()
				if !test.ours {
					select {
					case err := <-h.Errs:
						if !errors.Is(err, subnet.ErrLost) {
							t.Errorf("ended with %v, want ErrLost", err)
						}
					case <-time.After(time.Minute):
						t.Error("it fights for a lease that another host has")
					}
					return
				}
				if l := fake.OnlyLease(t); !l.Attrs.Equal(created.Attrs) {
					t.Errorf("the lease says %+v, want %+v", l.Attrs, created.Attrs)
				}
				h.End(t)
			})
		})
	}
}

// Our key still names the former address: it is no fault and no peer.
func TestAdoptFormerAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		own, err := fake.Create(t.Context(), subnet.Lease{Subnet: prefix("10.5.7.0/24"), Attrs: attrs("192.0.2.1")}, ttl)
		if err != nil {
			t.Fatal(err)
		}
		own.Attrs = attrs("192.0.2.3")
		m := newManager(t, fake, network16)
		m.Adopt(own, netip.MustParseAddr("192.0.2.1"))
		// Renew, which would write the new address, does not run.
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		delivered, ended := []subnet.Event(nil), make(chan error, 1)
		go func() { ended <- m.Watch(ctx, own, func(e []subnet.Event) { delivered = append(delivered, e...) }) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil || len(delivered) > 0 || m.BadCount() > 0 {
			t.Errorf("delivered %v, %d bad keys, %v", delivered, m.BadCount(), err)
		}
	})
}

// An adopted configuration is compared with the store's before the first write. A
// changed one is refused at once.
func TestAdoptReadsConfigFirst(t *testing.T) {
	for name, test := range map[string]struct{ config, refused string }{
		"same":    {network16, ""},
		"changed": {`{"Network": "10.6.0.0/16"}`, "Network is 10.6.0.0/16"},
		"gone":    {"", "gone"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				if test.config != "" {
					fake.SetConfig([]byte(test.config))
				}
				down := subnettest.Fault{Err: errors.New("store is down")}
				leave := make(chan struct{})
				fake.Inject(subnettest.OpConfig, down, subnettest.Fault{Wait: leave})
				own := subnet.Lease{Subnet: prefix("10.5.7.0/24"), Attrs: us, Expiration: time.Now().Add(time.Hour)}
				h := adoptHost(t, fake, own, nil)
				time.Sleep(10 * time.Second) // of the bubble
				if n := fake.Calls(subnettest.OpUpdate) + fake.Calls(subnettest.OpCreate); n > 0 {
					t.Errorf("%d writes before the configuration was read", n)
				}
				close(leave)
				synctest.Wait()
				if got := h.Manager.Status().ConfigRefused; (got == "") != (test.refused == "") || !strings.Contains(got, test.refused) {
					t.Errorf("refused with %q, want %q", got, test.refused)
				}
				if !h.Holds(t) {
					t.Error("the lease was not written after that")
				}
				h.End(t)
			})
		})
	}
}

// Status.Ends is the lease's end by Options.Clock, which counts time in suspend.
func TestStatusEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		m := newManager(t, fake, network16)
		if _, err := m.Acquire(t.Context(), us, subnet.Hints{}); err != nil {
			t.Fatal(err)
		}
		if left := m.Status().Ends - bubbleClock(); left != ttl {
			t.Errorf("the lease ends in %v, want %v", left, ttl)
		}
		fake.Put("10.5.7.0-24", value("192.0.2.2"), 0)
		if _, err := m.Acquire(t.Context(), attrs("192.0.2.2"), subnet.Hints{}); err != nil || m.Status().Ends != 0 {
			t.Errorf("a reservation ends at %v, %v", m.Status().Ends, err)
		}
	})
}
