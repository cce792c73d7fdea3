package subnet_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// delivered applies the events delivered so far to into, and returns it.
func delivered(t *testing.T, h *subnettest.Host, into map[netip.Prefix]netip.Addr) map[netip.Prefix]netip.Addr {
	t.Helper()
	for {
		select {
		case events := <-h.Events:
			for _, e := range events {
				_, known := into[e.Lease.Subnet]
				switch {
				case e.Lease.Subnet.Overlaps(h.Lease.Subnet):
					t.Errorf("own: told of %v", e)
				case e.Type == subnet.Removed && !known:
					t.Errorf("resync: removed %v, which was not there", e.Lease.Subnet)
				case e.Type == subnet.Removed:
					delete(into, e.Lease.Subnet)
				case into[e.Lease.Subnet] == e.Lease.Attrs.PublicIP:
					t.Errorf("resync: told again of %v", e.Lease)
				default:
					into[e.Lease.Subnet] = e.Lease.Attrs.PublicIP
				}
			}
		default:
			return into
		}
	}
}

// The first call is the full set, also when that is empty.
func TestWatchComplete(t *testing.T) {
	for _, n := range []int{0, 1, 50} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			for i := range n {
				fake.Put(fmt.Sprintf("10.5.%d.0-24", i+1), value("192.0.2.9"), time.Hour)
			}
			h := startHost(t, fake)
			if got := <-h.Events; len(got) != n {
				t.Errorf("the first call carries %d leases, want %d", len(got), n)
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// Leases of no peer are not delivered. A peer's lease that becomes one of these is
// removed.
func TestWatchRelevant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		<-h.Events
		h.Fake.Put(h.Lease.Key(), value("192.0.2.1"), ttl)                                               // our own, written again
		h.Fake.Put("10.5.0.0-16", value("192.0.2.9"), time.Hour)                                         // covers ours
		h.Fake.Put("10.6.1.0-24", value("192.0.2.9"), time.Hour)                                         // outside Network
		h.Fake.Put("10.0.0.0-8", value("192.0.2.9"), time.Hour)                                          // larger than Network
		h.Fake.Put("rubbish", []byte("rubbish"), time.Hour)                                              // not a lease
		h.Fake.Put("10.5.251.0-24", value("192.0.2.1"), time.Hour)                                       // our address
		h.Fake.Put("10.5.252.0-24", []byte(`{"PublicIP":"192.0.2.8","BackendType":"vxlan"}`), time.Hour) // not udp
		h.Fake.Put("10.5.253.0-24", value("192.0.2.7"), time.Hour)
		synctest.Wait()
		got := delivered(t, h, map[netip.Prefix]netip.Addr{})
		if fmt.Sprint(got) != "map[10.5.253.0/24:192.0.2.7]" {
			t.Errorf("told of %v, want 10.5.253.0/24 alone", got)
		}
		h.Fake.Put("10.5.253.0-24", []byte(`{"PublicIP":"192.0.2.7","BackendType":"vxlan"}`), time.Hour)
		time.Sleep(3 * time.Second)
		if got := delivered(t, h, got); len(got) != 0 {
			t.Errorf("told of %v, want nothing", got)
		}
		h.Stop()
		<-h.Errs
	})
}

// After any sequence of changes, broken watches and lost history, the data plane
// has exactly the leases of the store.
func TestWatchResync(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			h := startHost(t, subnettest.NewFake())
			told := delivered(t, h, map[netip.Prefix]netip.Addr{})
			for range 30 {
				down := rnd.IntN(3) == 0
				if down {
					h.Fake.SetDown(errors.New("store is down"))
				}
				for range rnd.IntN(10) {
					key := fmt.Sprintf("10.5.%d.0-24", rnd.IntN(8)+1)
					if key == h.Lease.Key() {
						continue
					}
					if rnd.IntN(2) == 0 {
						h.Fake.Remove(key)
					} else {
						h.Fake.Put(key, value(fmt.Sprintf("192.0.2.%d", rnd.IntN(3)+7)), 1000*time.Hour)
					}
				}
				if rnd.IntN(2) == 0 {
					h.Fake.Compact()
				}
				h.Fake.SetDown(nil)
				time.Sleep(2*time.Minute + 5*time.Second) // a mass disappearance is held so long
				synctest.Wait()
				told = delivered(t, h, told)
				want := make(map[netip.Prefix]netip.Addr)
				for _, l := range h.Fake.Leases(t) {
					if l.Subnet != h.Lease.Subnet {
						want[l.Subnet] = l.Attrs.PublicIP
					}
				}
				if fmt.Sprint(told) != fmt.Sprint(want) {
					t.Fatalf("seed %d: told %v, the store has %v", seed, told, want)
				}
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// While the store does not answer, nothing is removed from the data plane.
func TestWatchOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		fake.Put("10.5.1.0-24", value("192.0.2.9"), 1000*time.Hour)
		h := startHost(t, fake)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		fake.Compact()
		fake.SetDown(errors.New("store is down"))
		time.Sleep(10 * time.Hour)
		if len(told) != 1 || len(h.Events) != 0 {
			t.Errorf("told %v, then %d more calls", told, len(h.Events))
		}
		fake.SetDown(nil)
		h.Stop()
		<-h.Errs
	})
}

// After a broken watch, the leases are listed once: the store may have been restored
// meanwhile. If it was not, nothing is delivered.
func TestWatchListsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.Fake.Put("10.5.1.0-24", value("192.0.2.8"), time.Hour)
		h.Fake.Put("10.5.1.0-24", value("192.0.2.9"), time.Hour)
		synctest.Wait()
		delivered(t, h, map[netip.Prefix]netip.Addr{})
		lists := h.Fake.Calls(subnettest.OpList)
		h.Fake.BreakWatches(errors.New("connection reset"))
		time.Sleep(5 * time.Second)
		if again := h.Fake.Calls(subnettest.OpList) - lists; len(h.Events) != 0 || again != 1 {
			t.Errorf("told %d times more, listed %d times more", len(h.Events), again)
		}
		if err := h.Manager.Status().StoreError; err != nil {
			t.Errorf("the store listens again, and the status says %v", err)
		}
		h.Stop()
		<-h.Errs
	})
}
