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
	errSingleHeld   = errors.New("a single lease that ended was not removed within a second")
	errNotKept      = errors.New("peers that came back were told of again, or removed")
	errFirstNotTold = errors.New("the last known peers were not told of while the store is away")
)

// peers puts n peers into the store, 10.5.201.0 and on.
func putPeers(reg *subnettest.Fake, n int) {
	for i := range n {
		reg.Put(fmt.Sprintf("10.5.%d.0-24", 201+i), value(fmt.Sprintf("192.0.2.%d", 50+i)), 0)
	}
}

func removePeers(reg *subnettest.Fake, n int) {
	for i := range n {
		reg.Remove(fmt.Sprintf("10.5.%d.0-24", 201+i))
	}
}

// How most leases may vanish at once, with all that the store then says.
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
				reg := subnettest.NewFake()
				putPeers(reg, 10)
				h := startHost(t, reg)
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
				putPeers(reg, 5)
				time.Sleep(30 * time.Second)
				if len(h.Events) != 0 {
					t.Fatalf("%v: %v", errNotKept, <-h.Events)
				}
				time.Sleep(time.Minute)
				if got, want := len(delivered(t, h, told)), len(reg.Leases(t))-1; got != want || h.Manager.Status().Held != 0 {
					t.Errorf("%v: %d peers, the store has %d", errHeldForEver, got, want)
				}
				h.Stop()
				<-h.Errs
			})
		})
	}
}

// With one peer, the store is empty when that and we ourselves are gone; our
// own key is back at once, and tells nothing about the peer.
func TestEmptyStoreOfTwoIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 1)
		h := startHost(t, reg)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		reg.Remove(h.Lease.Key())
		removePeers(reg, 1)
		time.Sleep(time.Minute)
		if len(h.Events) != 0 || !h.Holds(t) {
			t.Errorf("%v, or our own key is missing", errTakenAtOnce)
		}
		putPeers(reg, 1)
		// Long after our own key went, a peer that goes alone goes at once.
		time.Sleep(5 * time.Minute)
		removePeers(reg, 1)
		time.Sleep(time.Second)
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
			reg := subnettest.NewFake()
			putPeers(reg, peers)
			h := startHost(t, reg)
			told := delivered(t, h, map[netip.Prefix]netip.Addr{})
			for left := peers - 1; left >= 0; left-- {
				reg.Remove(fmt.Sprintf("10.5.%d.0-24", 201+left))
				time.Sleep(time.Second)
				if got := delivered(t, h, told); len(got) != left {
					t.Errorf("%v: told of %v", errSingleHeld, got)
				}
			}
			h.Stop()
			<-h.Errs
		})
	}
}

// Once all are back the disaster is over: a peer that goes then goes at once.
func TestHoldEndsWhenAllAreBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 10)
		h := startHost(t, reg)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		removePeers(reg, 10)
		time.Sleep(time.Second)
		putPeers(reg, 10)
		time.Sleep(time.Second)
		removePeers(reg, 1)
		time.Sleep(time.Second)
		if got := delivered(t, h, told); len(got) != 9 {
			t.Errorf("%v: told of %d peers, want 9", errSingleHeld, len(got))
		}
		h.Stop()
		<-h.Errs
	})
}

// Another host takes the subnet of one that is held: that is no disappearance.
func TestSuccessorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 10)
		h := startHost(t, reg)
		told := delivered(t, h, map[netip.Prefix]netip.Addr{})
		removePeers(reg, 10)
		time.Sleep(time.Second)
		reg.Put("10.5.201.0-24", value("192.0.2.9"), 0)
		reg.Put("10.5.202.0-23", value("192.0.2.9"), 0)
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

// A start without the store, with what was known before; then the store is back
// and has the last word.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 4)
		var known []*subnet.Lease
		for _, l := range reg.Leases(t) {
			known = append(known, &l)
		}
		own, err := newManager(t, reg, network16).Acquire(t.Context(), us, subnet.Hints{})
		if err != nil {
			t.Fatal(err)
		}
		reg.SetDown(errors.New("store is down"))
		h := adoptHost(t, reg, own, known)
		if got := delivered(t, h, map[netip.Prefix]netip.Addr{}); len(got) != 4 || !h.Manager.Status().Synced {
			t.Errorf("%v: %v", errFirstNotTold, got)
		}
		renewals := reg.Calls(subnettest.OpUpdate)
		reg.SetDown(nil)
		reg.Remove("10.5.201.0-24")
		reg.Put("10.5.210.0-24", value("192.0.2.9"), 0)
		time.Sleep(5 * time.Second)
		if reg.Calls(subnettest.OpUpdate) == renewals {
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
