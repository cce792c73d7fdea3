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
var disasters = map[string]func(h *host){
	"emptied, seen by the watch": func(h *host) {
		h.reg.Remove(h.lease.Key())
		removePeers(h.reg, 10)
	},
	"emptied while away": func(h *host) {
		h.reg.SetDown(errors.New("store is down"))
		removePeers(h.reg, 10)
		h.reg.Remove(h.lease.Key())
		h.reg.Compact()
		h.reg.SetDown(nil)
	},
	"more than half": func(h *host) { removePeers(h.reg, 7) },
	"one after another": func(h *host) {
		for i := range 10 {
			h.reg.Remove(fmt.Sprintf("10.5.%d.0-24", 201+i))
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
				told := h.told(t, map[netip.Prefix]netip.Addr{})

				disaster(h)
				time.Sleep(time.Minute)
				if len(h.events) != 0 {
					t.Fatalf("%v: %v", errTakenAtOnce, <-h.events)
				}
				if s := h.manager.Status(); s.Held == 0 || s.Peers != 10 {
					t.Errorf("status says %d held of %d peers", s.Held, s.Peers)
				}
				// Half of them come back, as they were.
				putPeers(reg, 5)
				time.Sleep(30 * time.Second)
				if len(h.events) != 0 {
					t.Fatalf("%v: %v", errNotKept, <-h.events)
				}
				time.Sleep(time.Minute)
				if got, want := len(h.told(t, told)), len(list(t, reg))-1; got != want || h.manager.Status().Held != 0 {
					t.Errorf("%v: %d peers, the store has %d", errHeldForEver, got, want)
				}
				h.stop()
				<-h.errs
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
		told := h.told(t, map[netip.Prefix]netip.Addr{})
		reg.Remove(h.lease.Key())
		removePeers(reg, 1)
		time.Sleep(time.Minute)
		if len(h.events) != 0 || !h.held(t) {
			t.Errorf("%v, or our own key is missing", errTakenAtOnce)
		}
		putPeers(reg, 1)
		// Long after our own key went, a peer that goes alone goes at once.
		time.Sleep(5 * time.Minute)
		removePeers(reg, 1)
		time.Sleep(time.Second)
		if got := h.told(t, told); len(got) != 0 {
			t.Errorf("%v: told of %v", errSingleHeld, got)
		}
		h.stop()
		<-h.errs
	})
}

func TestSingleDisappearanceIsApplied(t *testing.T) {
	for _, peers := range []int{1, 2, 10} {
		synctest.Test(t, func(t *testing.T) {
			reg := subnettest.NewFake()
			putPeers(reg, peers)
			h := startHost(t, reg)
			told := h.told(t, map[netip.Prefix]netip.Addr{})
			for left := peers - 1; left >= 0; left-- {
				reg.Remove(fmt.Sprintf("10.5.%d.0-24", 201+left))
				time.Sleep(time.Second)
				if got := h.told(t, told); len(got) != left {
					t.Errorf("%v: told of %v", errSingleHeld, got)
				}
			}
			h.stop()
			<-h.errs
		})
	}
}

// Once all are back the disaster is over: a peer that goes then goes at once.
func TestHoldEndsWhenAllAreBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 10)
		h := startHost(t, reg)
		told := h.told(t, map[netip.Prefix]netip.Addr{})
		removePeers(reg, 10)
		time.Sleep(time.Second)
		putPeers(reg, 10)
		time.Sleep(time.Second)
		removePeers(reg, 1)
		time.Sleep(time.Second)
		if got := h.told(t, told); len(got) != 9 {
			t.Errorf("%v: told of %d peers, want 9", errSingleHeld, len(got))
		}
		h.stop()
		<-h.errs
	})
}

// Another host takes the subnet of one that is held: that is no disappearance.
func TestSuccessorIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 10)
		h := startHost(t, reg)
		told := h.told(t, map[netip.Prefix]netip.Addr{})
		removePeers(reg, 10)
		time.Sleep(time.Second)
		reg.Put("10.5.201.0-24", value("192.0.2.9"), 0)
		reg.Put("10.5.202.0-23", value("192.0.2.9"), 0)
		time.Sleep(time.Second)
		told = h.told(t, told)
		for _, p := range []string{"10.5.201.0/24", "10.5.202.0/23"} {
			if told[prefix(p)] != netip.MustParseAddr("192.0.2.9") {
				t.Errorf("%s is %v, want its new owner", p, told[prefix(p)])
			}
		}
		if _, is := told[prefix("10.5.202.0/24")]; is {
			t.Error("two peers overlap")
		}
		h.stop()
		<-h.errs
	})
}

// A start without the store, with what was known before; then the store is back
// and has the last word.
func TestAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := subnettest.NewFake()
		putPeers(reg, 4)
		var known []*subnet.Lease
		for _, l := range list(t, reg) {
			known = append(known, &l)
		}
		own, err := newManager(t, reg, network16).Acquire(t.Context(), us, netip.Prefix{})
		if err != nil {
			t.Fatal(err)
		}
		reg.SetDown(errors.New("store is down"))
		h := adoptHost(t, reg, own, known)
		if got := h.told(t, map[netip.Prefix]netip.Addr{}); len(got) != 4 || !h.manager.Status().Synced {
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
		if s := h.manager.Status(); s.Peers != 4 {
			t.Errorf("%d peers, the store has 4", s.Peers)
		}
		h.stop()
		if err := <-h.errs; err != nil {
			t.Error(err)
		}
	})
}
