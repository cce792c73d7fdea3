package subnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		for range 100 {
			time.Sleep(ttl)
			if !h.Holds(t) {
				t.Fatal("the lease has expired")
			}
		}
		// 100 days at 23 h less up to a tenth.
		if n := h.Fake.Calls(subnettest.OpUpdate); n < 100 || n > 130 {
			t.Errorf("%d renewals in 100 days", n)
		}
		if n := h.Fake.Calls(subnettest.OpCreate); n != 1 {
			t.Errorf("the lease was created %d times: it has expired in between", n)
		}
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Errorf("renew ended with %v", err)
		}
		if !h.Holds(t) {
			t.Error("the lease is gone after a normal end")
		}
	})
}

// The store is away from before the renewal until after the lease's end.
func TestRenewAfterOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.Fake.SetDown(errors.New("store is down"))
		time.Sleep(2 * ttl)
		h.Fake.SetDown(nil)
		time.Sleep(5 * time.Second)
		if !h.Holds(t) {
			t.Error("the lease is not there 5 s after the store came back")
		}
		h.Stop()
		<-h.Errs
	})
}

func TestRenewDeletedKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.Fake.Remove(h.Lease.Key())
		time.Sleep(time.Second)
		if !h.Holds(t) {
			t.Error("the key was not created again")
		}
		h.Stop()
		<-h.Errs
	})
}

// The key vanishes while the watch is broken: the next full list shows it.
func TestRenewDeletedUnseen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.Fake.SetDown(errors.New("store is down"))
		h.Fake.Remove(h.Lease.Key())
		h.Fake.Compact()
		h.Fake.SetDown(nil)
		time.Sleep(5 * time.Second)
		if !h.Holds(t) {
			t.Error("the key was not created again")
		}
		h.Stop()
		<-h.Errs
	})
}

func TestRenewLost(t *testing.T) {
	for _, key := range []string{"own", "10.5.0.0-17", "10.5.128.0-17"} {
		synctest.Test(t, func(t *testing.T) {
			h := startHost(t, subnettest.NewFake())
			other := key
			if key == "own" {
				other = h.Lease.Key()
			} else if l, _ := subnet.ParseKey(key); !l.Subnet.Overlaps(h.Lease.Subnet) {
				h.Stop()
				<-h.Errs
				return // the other half is this subtest's twin
			}
			// A renewal between the two finds the other host's key.
			h.Fake.Put(other, value("192.0.2.9"), time.Hour)
			if key != "own" {
				h.Fake.Remove(h.Lease.Key())
			}
			err := <-h.Errs
			if !errors.Is(err, subnet.ErrLost) || !strings.Contains(err.Error(), "192.0.2.9") {
				t.Errorf("got %v, want ErrLost that names 192.0.2.9", err)
			}
			if got := h.Fake.Leases(t); len(got) != 1 || got[0].Attrs.PublicIP.String() != "192.0.2.9" {
				t.Errorf("the other host's key became %+v", got)
			}
		})
	}
}

// Our key was written by another party, or by a renewal whose answer was lost. It
// still names us, so Renew continues from it.
func TestRenewRewrittenKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.Fake.Put(h.Lease.Key(), value("192.0.2.1"), 10*ttl)
		h.Fake.Inject(subnettest.OpUpdate, subnettest.Fault{LostAck: errors.New("answer lost")})
		time.Sleep(3 * ttl)
		if n := h.Fake.Calls(subnettest.OpUpdate); n < 3 {
			t.Errorf("%d renewals in three days", n)
		}
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Errorf("renew ended with %v", err)
		}
	})
}

// A reservation has no end, so there is nothing to renew.
func TestRenewReservation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.7.0-24", value("192.0.2.1"), 0)
		h := startHost(t, fake)
		time.Sleep(100 * ttl)
		if n := fake.Calls(subnettest.OpUpdate); n != 1 {
			t.Errorf("%d updates, want the one of Acquire", n)
		}
		h.Stop()
		<-h.Errs
	})
}

// suspendable returns timing with a clock that also counts the time in suspend.
func suspendable() (timing subnet.Timing, suspended *atomic.Int64) {
	timing, suspended = options, new(atomic.Int64)
	timing.Clock = func() time.Duration { return bubbleClock() + time.Duration(suspended.Load()) }
	return timing, suspended
}

// A machine that was suspended beyond the end of its lease renews at once,
// although no timer of Go's has counted that time.
func TestRenewAfterSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		slept, suspended := suspendable()
		m := fake.NewManager(parseConfig(t, network16), ttl, slept)
		l, err := m.Acquire(t.Context(), us, subnet.Hints{})
		if err != nil {
			t.Fatal(err)
		}
		h := subnettest.RunHost(t, fake, m, l)
		time.Sleep(time.Hour)
		if n := fake.Calls(subnettest.OpUpdate); n != 0 {
			t.Errorf("%d renewals in the first hour", n)
		}
		suspended.Store(int64(23 * time.Hour))
		time.Sleep(time.Minute)
		if n := fake.Calls(subnettest.OpUpdate); n != 1 {
			t.Errorf("%d renewals after a suspend of 23 h, want one", n)
		}
		h.Stop()
		<-h.Errs
	})
}

// Hosts that started together do not renew together.
func TestRenewHasJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		var hosts []*subnettest.Host
		for i := range 20 {
			m := newManager(t, fake, network16)
			l, err := m.Acquire(t.Context(), attrs(fmt.Sprintf("192.0.2.%d", 10+i)), subnet.Hints{})
			if err != nil {
				t.Fatal(err)
			}
			hosts = append(hosts, subnettest.RunHost(t, fake, m, l))
		}
		most, before := 0, 0
		for range int(ttl / time.Minute) {
			time.Sleep(time.Minute)
			n := fake.Calls(subnettest.OpUpdate)
			most, before = max(most, n-before), n
		}
		if before != len(hosts) || most > len(hosts)/2 {
			t.Errorf("%d renewals in one term, %d of them in one minute", before, most)
		}
		for _, h := range hosts {
			h.Stop()
			<-h.Errs
		}
	})
}

// The lease's end is by a clock that counts the time in suspend, in the status as
// well as after a change of uplink, and if the suspend is within Acquire.
func TestEndAfterSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		slept, suspended := suspendable()
		m := fake.NewManager(parseConfig(t, network16), ttl, slept)
		created, leave := make(chan struct{}), make(chan struct{})
		fake.Inject(subnettest.OpOverlapping, subnettest.Fault{Entered: created, Wait: leave})
		go func() {
			<-created
			suspended.Store(int64(5 * time.Hour))
			close(leave)
		}()
		left := func(m *subnet.Manager) (byClock, shown time.Duration) {
			s := m.Status()
			return s.Ends - slept.Clock(), time.Until(s.Lease.Expiration)
		}
		if _, err := m.Acquire(t.Context(), us, subnet.Hints{}); err != nil {
			t.Fatal(err)
		}
		if byClock, shown := left(m); byClock != ttl-5*time.Hour || shown != byClock {
			t.Errorf("a suspend within Acquire: the lease ends in %v, shown %v", byClock, shown)
		}
		suspended.Add(int64(10 * time.Hour))
		again := fake.NewManager(parseConfig(t, network16), ttl, slept)
		again.Adopt(m.Status().Lease)
		if byClock, shown := left(again); byClock != ttl-15*time.Hour || shown != byClock {
			t.Errorf("a suspend before Adopt: the lease ends in %v, shown %v", byClock, shown)
		}
	})
}

// The log has a line for each renewal, none for a write of attributes, and none for
// a reservation.
func TestRenewalsAreLogged(t *testing.T) {
	for _, reserved := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			h := startHost(t, subnettest.NewFake())
			if reserved {
				if _, err := h.Fake.Reserve(t.Context(), h.Fake.Leases(t)[0]); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
			}
			lines := func(cause func()) int64 {
				before := log.Stats.Info.Lines()
				cause()
				synctest.Wait()
				return log.Stats.Info.Lines() - before
			}
			if n := lines(func() { h.Manager.Publish(subnet.Attrs{BackendType: "udp", BackendData: []byte("1")}) }); n != 0 {
				t.Errorf("reserved %v: %d lines after Publish", reserved, n)
			}
			want := int64(10)
			if reserved {
				want = 0
			}
			if n := lines(func() { time.Sleep(10 * ttl) }); n < want || n > want*3/2 {
				t.Errorf("reserved %v: %d lines in ten times the TTL, want %d", reserved, n, want)
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// A lease has expired when the clock that nobody can set passes its end.
func TestExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now time.Duration
		var want bool
		m := subnettest.NewFake().NewManager(parseConfig(t, network16), ttl, subnet.Timing{Clock: func() time.Duration { return now }})
		if m.Status().Expired {
			t.Error("no lease has expired")
		}
		m.Adopt(subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Expiration: time.Now().Add(time.Hour)})
		for now, want = range map[time.Duration]bool{59 * time.Minute: false, 61 * time.Minute: true} {
			if m.Status().Expired != want {
				t.Errorf("after %v: expired %v", now, !want)
			}
		}
		m.Adopt(subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")})
		if m.Status().Expired {
			t.Error("a lease without an end has expired")
		}
	})
}
