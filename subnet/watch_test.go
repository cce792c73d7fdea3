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

// told is what the events so far amount to.
func (h *host) told(t *testing.T, into map[netip.Prefix]netip.Addr) map[netip.Prefix]netip.Addr {
	t.Helper()
	for {
		select {
		case events := <-h.events:
			for _, e := range events {
				_, known := into[e.Lease.Subnet]
				switch {
				case e.Lease.Subnet.Overlaps(h.lease.Subnet):
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
			reg := subnettest.NewFake()
			for i := range n {
				reg.Put(fmt.Sprintf("10.5.%d.0-24", i+1), value("192.0.2.9"), time.Hour)
			}
			h := startHost(t, reg)
			if got := <-h.events; len(got) != n {
				t.Errorf("the first call carries %d leases, want %d", len(got), n)
			}
			h.stop()
			<-h.errs
		})
	}
}

// Leases that are nobody's to route are not delivered, and when a good lease
// turns into one of these, it is taken back.
func TestWatchRelevant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		<-h.events
		h.reg.Put(h.lease.Key(), value("192.0.2.1"), terms.TTL)                                         // our own, written again
		h.reg.Put("10.5.0.0-16", value("192.0.2.9"), time.Hour)                                         // covers ours
		h.reg.Put("10.6.1.0-24", value("192.0.2.9"), time.Hour)                                         // outside Network
		h.reg.Put("10.0.0.0-8", value("192.0.2.9"), time.Hour)                                          // larger than Network
		h.reg.Put("rubbish", []byte("rubbish"), time.Hour)                                              // not a lease
		h.reg.Put("10.5.251.0-24", value("192.0.2.1"), time.Hour)                                       // our address
		h.reg.Put("10.5.252.0-24", []byte(`{"PublicIP":"192.0.2.8","BackendType":"vxlan"}`), time.Hour) // not udp
		h.reg.Put("10.5.253.0-24", value("192.0.2.7"), time.Hour)
		synctest.Wait()
		got := h.told(t, map[netip.Prefix]netip.Addr{})
		if fmt.Sprint(got) != "map[10.5.253.0/24:192.0.2.7]" {
			t.Errorf("told of %v, want 10.5.253.0/24 alone", got)
		}
		h.reg.Put("10.5.253.0-24", []byte(`{"PublicIP":"192.0.2.7","BackendType":"vxlan"}`), time.Hour)
		time.Sleep(time.Second)
		if got := h.told(t, got); len(got) != 0 {
			t.Errorf("told of %v, want nothing", got)
		}
		h.stop()
		<-h.errs
	})
}

// After any sequence of changes, broken watches and lost history, the data
// plane has been told exactly what the store holds.
func TestWatchResync(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 0))
			h := startHost(t, subnettest.NewFake())
			told := h.told(t, map[netip.Prefix]netip.Addr{})
			for range 30 {
				down := rnd.IntN(3) == 0
				if down {
					h.reg.SetDown(errors.New("store is down"))
				}
				for range rnd.IntN(10) {
					key := fmt.Sprintf("10.5.%d.0-24", rnd.IntN(8)+1)
					if key == h.lease.Key() {
						continue
					}
					if rnd.IntN(2) == 0 {
						h.reg.Remove(key)
					} else {
						h.reg.Put(key, value(fmt.Sprintf("192.0.2.%d", rnd.IntN(3)+7)), 1000*time.Hour)
					}
				}
				if rnd.IntN(2) == 0 {
					h.reg.Compact()
				}
				h.reg.SetDown(nil)
				time.Sleep(2*time.Minute + 5*time.Second) // a mass disappearance is held so long
				synctest.Wait()
				told = h.told(t, told)
				want := make(map[netip.Prefix]netip.Addr)
				for _, l := range list(t, h.reg) {
					if l.Subnet != h.lease.Subnet {
						want[l.Subnet] = l.Attrs.PublicIP
					}
				}
				if fmt.Sprint(told) != fmt.Sprint(want) {
					t.Fatalf("seed %d: told %v, the store has %v", seed, told, want)
				}
			}
			h.stop()
			<-h.errs
		})
	}
}

// While the store does not answer, nothing is taken away from the data plane.
func TestWatchOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		reg.Put("10.5.1.0-24", value("192.0.2.9"), 1000*time.Hour)
		h := startHost(t, reg)
		told := h.told(t, map[netip.Prefix]netip.Addr{})
		reg.Compact()
		reg.SetDown(errors.New("store is down"))
		time.Sleep(10 * time.Hour)
		if len(told) != 1 || len(h.events) != 0 {
			t.Errorf("told %v, then %d more calls", told, len(h.events))
		}
		reg.SetDown(nil)
		h.stop()
		<-h.errs
	})
}

// A broken watch goes on where it broke: what was told is not told again, and
// nothing is listed anew.
func TestWatchResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := startHost(t, subnettest.NewFake())
		h.reg.Put("10.5.1.0-24", value("192.0.2.8"), time.Hour)
		h.reg.Put("10.5.1.0-24", value("192.0.2.9"), time.Hour)
		synctest.Wait()
		h.told(t, map[netip.Prefix]netip.Addr{})
		lists := h.reg.Calls(subnettest.OpList)
		h.reg.BreakWatches(errors.New("connection reset"))
		time.Sleep(5 * time.Second)
		if again := h.reg.Calls(subnettest.OpList) - lists; len(h.events) != 0 || again != 0 {
			t.Errorf("told %d times more, listed %d times more", len(h.events), again)
		}
		if err := h.manager.Status().StoreError; err != nil {
			t.Errorf("the store listens again, and the status says %v", err)
		}
		h.stop()
		<-h.errs
	})
}
