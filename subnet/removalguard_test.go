package subnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// Violations of the promise that packets do not depend on the store.
var (
	errTakenAtOnce  = errors.New("a mass disappearance was applied at once")
	errHeldForEver  = errors.New("peers that are gone for good were never removed")
	errSingleHeld   = errors.New("a single lease that ended was not removed within seconds")
	errNotKept      = errors.New("peers that came back were told of again, or removed")
	errFirstNotTold = errors.New("the last known peers were not told of while the store is away")
)

// putPeers puts n peers into the store, 10.5.201.0 and on.
func putPeers(fake *subnettest.Fake, n int) {
	for i := range n {
		fake.Put(fmt.Sprintf("10.5.%d.0-24", 201+i), value(fmt.Sprintf("192.0.2.%d", 50+i)), 0)
	}
}

func removePeers(fake *subnettest.Fake, n int) {
	for i := range n {
		fake.Remove(fmt.Sprintf("10.5.%d.0-24", 201+i))
	}
}

// disasters are ways in which most leases vanish at once.
var disasters = map[string]func(h *subnettest.Host){
	"emptied, seen by the watch": func(h *subnettest.Host) {
		h.Fake.Remove(h.Lease.Key())
		removePeers(h.Fake, 10)
	},
	"emptied while away": func(h *subnettest.Host) {
		h.Fake.SetDown(errors.New("store is down"))
		removePeers(h.Fake, 10)
		h.Fake.Remove(h.Lease.Key())
		h.Fake.Compact()
		h.Fake.SetDown(nil)
	},
	"more than half": func(h *subnettest.Host) { removePeers(h.Fake, 7) },
	"one after another": func(h *subnettest.Host) {
		for i := range 10 {
			h.Fake.Remove(fmt.Sprintf("10.5.%d.0-24", 201+i))
			time.Sleep(20 * time.Millisecond)
		}
	},
}

func TestMassDisappearanceIsHeld(t *testing.T) {
	for name, disaster := range disasters {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := subnettest.NewFake()
				putPeers(fake, 10)
				h := startHost(t, fake)
				told := delivered(t, h, map[netip.Prefix]netip.Addr{})

				disaster(h)
				time.Sleep(time.Minute)
				if len(h.Events) != 0 {
					t.Fatalf("%v: %v", errTakenAtOnce, <-h.Events)
				}
				if s := h.Manager.Status(); s.Held == 0 || s.Peers != 10 {
					t.Errorf("status says %d held of %d peers", s.Held, s.Peers)
				}
				// Half of them come back, as they were.
				putPeers(fake, 5)
				time.Sleep(30 * time.Second)
				if len(h.Events) != 0 {
					t.Fatalf("%v: %v", errNotKept, <-h.Events)
				}
				time.Sleep(time.Minute)
				if got, want := len(delivered(t, h, told)), len(fake.Leases(t))-1; got != want || h.Manager.Status().Held != 0 {
					t.Errorf("%v: %d peers, the store has %d", errHeldForEver, got, want)
				}
				h.Stop()
				<-h.Errs
			})
		})
	}
}

// With one peer, the store is empty when its lease and ours are gone. Our own key
// returns at once, independent of the peer.
func TestEmptyStoreOfTwoIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		putPeers(fake, 1)
		h := startHost(t, fake)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		fake.Remove(h.Lease.Key())
		removePeers(fake, 1)
		time.Sleep(time.Minute)
		if len(h.Events) != 0 || !h.Holds(t) {
			t.Errorf("%v, or our own key is missing", errTakenAtOnce)
		}
		putPeers(fake, 1)
		// Long after our own key vanished, a single removal is no disaster.
		time.Sleep(5 * time.Minute)
		removePeers(fake, 1)
		time.Sleep(3 * time.Second)
		if got := delivered(t, h, told); len(got) != 0 {
			t.Errorf("%v: told of %v", errSingleHeld, got)
		}
		h.Stop()
		<-h.Errs
	})
}

func TestSingleDisappearanceIsApplied(t *testing.T) {
	for _, peers := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			fake := subnettest.NewFake()
			putPeers(fake, peers)
			h := startHost(t, fake)
			told := delivered(t, h, map[netip.Prefix]netip.Addr{})
			for left := peers - 1; left >= 0; left-- {
				fake.Remove(fmt.Sprintf("10.5.%d.0-24", 201+left))
				time.Sleep(3 * time.Second)
				if got := delivered(t, h, told); len(got) != left {
					t.Errorf("%v: told of %v", errSingleHeld, got)
				}
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// A living host creates its key again. On a loaded machine that takes its time, also
// if another host has left just before.
func TestLateReturnIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		putPeers(fake, 10)
		h := startHost(t, fake)
		delivered(t, h, map[netip.Prefix]netip.Addr{})
		fake.Remove("10.5.202.0-24") // for good
		time.Sleep(500 * time.Millisecond)
		removePeers(fake, 1)
		time.Sleep(750 * time.Millisecond)
		putPeers(fake, 1)
		time.Sleep(10 * time.Second)
		events := <-h.Events
		if len(events) != 1 || events[0].Type != subnet.Removed || events[0].Subnet() != prefix("10.5.202.0/24") || len(h.Events) != 0 {
			t.Errorf("%v: told of %v and %d more", errNotKept, events, len(h.Events))
		}
		h.Stop()
		<-h.Errs
	})
}

// When all peers are back the disaster is over: a later removal is applied.
func TestHoldEndsWhenAllAreBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		putPeers(fake, 10)
		h := startHost(t, fake)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		removePeers(fake, 10)
		time.Sleep(3 * time.Second)
		putPeers(fake, 10)
		time.Sleep(time.Second)
		removePeers(fake, 1)
		time.Sleep(3 * time.Second)
		if got := delivered(t, h, told); len(got) != 9 {
			t.Errorf("%v: told of %d peers, want 9", errSingleHeld, len(got))
		}
		h.Stop()
		<-h.Errs
	})
}

// A host that takes a held subnet is delivered at once.
func TestSuccessorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		putPeers(fake, 10)
		h := startHost(t, fake)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		removePeers(fake, 10)
		time.Sleep(3 * time.Second)
		fake.Put("10.5.201.0-24", value("192.0.2.9"), 0)
		fake.Put("10.5.202.0-23", value("192.0.2.9"), 0)
		time.Sleep(time.Second)
		told = delivered(t, h, told)
		for _, p := range []string{"10.5.201.0/24", "10.5.202.0/23"} {
			if told[prefix(p)] != netip.MustParseAddr("192.0.2.9") {
				t.Errorf("%s is %v, want its new owner", p, told[prefix(p)])
			}
		}
		if _, is := told[prefix("10.5.202.0/24")]; is {
			t.Error("two peers overlap")
		}
		h.Stop()
		<-h.Errs
	})
}

// A start without the store delivers the adopted leases. When the store is back,
// its leases replace them.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := subnettest.NewFake()
		putPeers(fake, 4)
		var known []*subnet.Lease
		for _, l := range fake.Leases(t) {
			known = append(known, &l)
		}
		own, err := newManager(t, fake, network16).Acquire(t.Context(), us, subnet.Hints{Previous: prefix("10.5.100.0/24")})
		if err != nil {
			t.Fatal(err)
		}
		fake.SetDown(errors.New("store is down"))
		h := adoptHost(t, fake, own, known)
		if got := delivered(t, h, map[netip.Prefix]netip.Addr{}); len(got) != 4 || !h.Manager.Status().Synced {
			t.Errorf("%v: %v", errFirstNotTold, got)
		}
		renewals := fake.Calls(subnettest.OpUpdate)
		fake.SetDown(nil)
		fake.Remove("10.5.201.0-24")
		fake.Put("10.5.210.0-24", value("192.0.2.9"), 0)
		time.Sleep(5 * time.Second)
		if fake.Calls(subnettest.OpUpdate) == renewals {
			t.Error("the lease was not renewed at the store's return")
		}
		if s := h.Manager.Status(); s.Peers != 4 {
			t.Errorf("%d peers, the store has 4", s.Peers)
		}
		h.Stop()
		if err := <-h.Errs; err != nil {
			t.Error(err)
		}
	})
}
