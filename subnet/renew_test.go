package subnet_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// host is a Manager at work on a Fake, in a synctest bubble.
type host struct {
	reg     *subnettest.Fake
	manager *subnet.Manager
	lease   subnet.Lease
	events  chan []subnet.Event
	errs    chan error // what Renew returned
	stop    context.CancelFunc
}

func startHost(t *testing.T, reg *subnettest.Fake) *host {
	t.Helper()
	m := newManager(t, reg, network16)
	l, err := m.Acquire(t.Context(), us, netip.Prefix{})
	if err != nil {
		t.Fatal(err)
	}
	return run(t, reg, m, l)
}

func adoptHost(t *testing.T, reg *subnettest.Fake, own subnet.Lease, known []*subnet.Lease) *host {
	t.Helper()
	m := newManager(t, reg, network16)
	m.Adopt(own, known)
	return run(t, reg, m, own)
}

func run(t *testing.T, reg *subnettest.Fake, m *subnet.Manager, l subnet.Lease) *host {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h := &host{reg: reg, manager: m, lease: l, events: make(chan []subnet.Event, 1000), errs: make(chan error, 1), stop: cancel}
	watched := make(chan error, 1)
	go func() { h.errs <- m.Renew(ctx, l) }()
	go func() { watched <- m.Watch(ctx, l, func(e []subnet.Event) { h.events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-watched; err != nil {
			t.Errorf("watch ended with %v", err)
		}
	})
	synctest.Wait()
	return h
}

// held reports whether the store has the host's lease.
func (h *host) held(t *testing.T) bool {
	for _, l := range list(t, h.reg) {
		if l.Subnet == h.lease.Subnet && l.Attrs.Equal(h.lease.Attrs) {
			return true
		}
	}
	return false
}

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		for range 100 {
			time.Sleep(terms.TTL)
			if !h.held(t) {
				t.Fatal("the lease has expired")
			}
		}
		// 100 days at 23 h less up to a tenth.
		if n := h.reg.Calls(subnettest.OpUpdate); n < 100 || n > 130 {
			t.Errorf("%d renewals in 100 days", n)
		}
		if n := h.reg.Calls(subnettest.OpCreate); n != 1 {
			t.Errorf("the lease was created %d times: it has expired in between", n)
		}
		h.stop()
		if err := <-h.errs; err != nil {
			t.Errorf("renew ended with %v", err)
		}
		if !h.held(t) {
			t.Error("the lease is gone after a normal end")
		}
	})
}

// The store is away from before the renewal until after the lease's end.
func TestRenewAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.reg.SetDown(errors.New("store is down"))
		time.Sleep(2 * terms.TTL)
		h.reg.SetDown(nil)
		time.Sleep(5 * time.Second)
		if !h.held(t) {
			t.Error("the lease is not there 5 s after the store came back")
		}
		h.stop()
		<-h.errs
	})
}

func TestRenewDeletedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.reg.Remove(h.lease.Key())
		time.Sleep(time.Second)
		if !h.held(t) {
			t.Error("the key was not created again")
		}
		h.stop()
		<-h.errs
	})
}

// The key vanishes while the watch is broken: the next full list shows it.
func TestRenewDeletedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.reg.SetDown(errors.New("store is down"))
		h.reg.Remove(h.lease.Key())
		h.reg.Compact()
		h.reg.SetDown(nil)
		time.Sleep(5 * time.Second)
		if !h.held(t) {
			t.Error("the key was not created again")
		}
		h.stop()
		<-h.errs
	})
}

func TestRenewLost(t *testing.T) {
	for _, key := range []string{"own", "10.5.0.0-17", "10.5.128.0-17"} {
		synctest.Test(t, func(t *testing.T) {
			h := startHost(t, subnettest.NewFake())
			other := key
			if key == "own" {
				other = h.lease.Key()
			} else if l, _ := subnet.ParseKey(key); !l.Subnet.Overlaps(h.lease.Subnet) {
				h.stop()
				<-h.errs
				return // the other half is this subtest's twin
			}
			h.reg.Remove(h.lease.Key())
			h.reg.Put(other, value("192.0.2.9"), time.Hour)
			err := <-h.errs
			if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "192.0.2.9") {
				t.Errorf("got %v, want ErrLost that names 192.0.2.9", err)
			}
			if got := list(t, h.reg); len(got) != 1 || got[0].Attrs.PublicIP.String() != "192.0.2.9" {
				t.Errorf("the other host's key became %+v", got)
			}
		})
	}
}

// Our key was written behind our back, as by a renewal whose answer was lost:
// it still names us, so we go on from there.
func TestRenewRewrittenKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.reg.Put(h.lease.Key(), value("192.0.2.1"), 10*terms.TTL)
		h.reg.Inject(subnettest.OpUpdate, subnettest.Fault{LostAck: errors.New("answer lost")})
		time.Sleep(3 * terms.TTL)
		if n := h.reg.Calls(subnettest.OpUpdate); n < 3 {
			t.Errorf("%d renewals in three days", n)
		}
		h.stop()
		if err := <-h.errs; err != nil {
			t.Errorf("renew ended with %v", err)
		}
	})
}

// A reservation has no end, so there is nothing to renew.
func TestRenewReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		reg.Put("10.5.7.0-24", value("192.0.2.1"), 0)
		h := startHost(t, reg)
		time.Sleep(100 * terms.TTL)
		if n := reg.Calls(subnettest.OpUpdate); n != 1 {
			t.Errorf("%d updates, want the one of Acquire", n)
		}
		h.stop()
		<-h.errs
	})
}

// A machine that was suspended for longer than the lease's rest renews at once:
// the time passed on no clock of Go's.
func TestRenewAfterSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var suspended atomic.Int64
		reg := subnettest.NewFake()
		c, err := subnet.ParseConfig([]byte(network16))
		if err != nil {
			t.Fatal(err)
		}
		slept := terms
		slept.Clock = func() time.Duration { return bubbleClock() + time.Duration(suspended.Load()) }
		m := subnet.NewManager(reg, c, slept)
		l, err := m.Acquire(t.Context(), us, netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		h := run(t, reg, m, l)
		time.Sleep(time.Hour)
		if n := reg.Calls(subnettest.OpUpdate); n != 0 {
			t.Errorf("%d renewals in the first hour", n)
		}
		suspended.Store(int64(23 * time.Hour))
		time.Sleep(time.Minute)
		if n := reg.Calls(subnettest.OpUpdate); n != 1 {
			t.Errorf("%d renewals after a suspend of 23 h, want one", n)
		}
		h.stop()
		<-h.errs
	})
}

// Hosts that started together do not renew together.
func TestRenewHasJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		var hosts []*host
		for i := range 20 {
			m := newManager(t, reg, network16)
			l, err := m.Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", 10+i)), netip.Prefix{})
			if err != nil {
				t.Fatal(err)
			}
			hosts = append(hosts, run(t, reg, m, l))
		}
		most, before := 0, 0
		for range int(terms.TTL / time.Minute) {
			time.Sleep(time.Minute)
			n := reg.Calls(subnettest.OpUpdate)
			most, before = max(most, n-before), n
		}
		if before != len(hosts) || most > len(hosts)/2 {
			t.Errorf("%d renewals in one term, %d of them in one minute", before, most)
		}
		for _, h := range hosts {
			h.stop()
			<-h.errs
		}
	})
}
