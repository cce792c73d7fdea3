package daemon

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

var (
	errUnusable = errors.New("cannot be used")
	eth1        = uplink.Uplink{Index: 3, Name: "eth1", MTU: 1400, Addr: netip.MustParseAddr("192.0.2.20")}
)

// An uplink that changes gives a new network with the same lease and peers; the
// store learns the new address, and READY=1 is sent once.
func TestUplinkChangeKeepsTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		peer := netip.MustParsePrefix("10.5.200.0/24")
		r.addPeer(peer, "192.0.2.1")
		m := r.join()
		lease := m.lease.Subnet
		s := r.supervise(m)
		first := r.network()
		if first == nil || first.lease.Subnet != lease || !first.has(peer) {
			t.Fatalf("the first network is %+v, want one for %v with peer %v", first, lease, peer)
		}
		env, err := subnetfile.Read(r.options.subnetFile)
		if err != nil || env.Subnet != lease || env.MTU != 1472 {
			t.Errorf("subnet.env has %+v, %v", env, err)
		}
		r.uplinks <- eth1
		second := r.network()
		if second == nil || second.lease.Subnet != lease || !second.has(peer) {
			t.Fatalf("the second network is %+v, want one for %v with peer %v", second, lease, peer)
		}
		if !first.isClosed() || second.isClosed() {
			t.Errorf("first network closed: %v, second: %v", first.isClosed(), second.isClosed())
		}
		if got := r.stored(lease).Attrs.PublicIP; got != eth1.Addr {
			t.Errorf("the stored lease is of %v, want %v", got, eth1.Addr)
		}
		if got := r.state.get(); got.sides[inet.IPv4].uplink != eth1 || got.sides[inet.IPv4].publicIP != eth1.Addr || !got.applied {
			t.Errorf("the state is %+v", got)
		}
		if got := r.noted(&r.messages); !slices.Equal(got, []string{sd.SdNotifyReady}) {
			t.Errorf("systemd got %q", got)
		}
		s.end(t)
		if !second.isClosed() || r.state.get().network != nil {
			t.Error("the network is still open")
		}
		if r.stored(lease).Subnet != lease || len(r.noted(&r.removed)) > 0 {
			t.Errorf("the end took the lease, or removed %q", r.noted(&r.removed))
		}
	})
}

// READY=1 needs subnet.env and the first full set of peers; a store that is away
// at the start delays it.
func TestReadyAfterTheFirstFullSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		r.store.SetDown(errUnusable)
		r.supervise(m)
		n := r.network()
		if n == nil {
			t.Fatal("no network")
		}
		if _, err := subnetfile.Read(r.options.subnetFile); err != nil {
			t.Error(err)
		}
		if got := r.reporter.summary().NotReady; !slices.Equal(got, []string{"waiting for the first full set of peers"}) {
			t.Errorf("not ready: %q", got)
		}
		if r.state.wasReady() || len(r.noted(&r.messages)) > 0 {
			t.Error("ready without peers")
		}
		r.store.SetDown(nil)
		<-n.applied
		synctest.Wait()
		if !r.state.wasReady() || !slices.Equal(r.noted(&r.messages), []string{sd.SdNotifyReady}) {
			t.Errorf("ready: %v, systemd got %q", r.state.wasReady(), r.noted(&r.messages))
		}
	})
}

// A network that cannot be set up for another uplink is tried again at growing
// intervals. The lease is renewed meanwhile, for many times its length.
func TestSetupFailureKeepsTheLease(t *testing.T) {
	for _, tt := range []struct {
		name       string
		refuse, up error
	}{
		{"the backend refuses the uplink", errUnusable, nil},
		{"the device cannot be made", nil, errUnusable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				m := r.join()
				lease := m.lease.Subnet
				s := r.supervise(m)
				first := r.network()
				if first == nil {
					t.Fatal("no first network")
				}
				r.fail(tt.refuse, tt.up)
				r.uplinks <- eth1
				time.Sleep(10 * rigTTL)
				if !first.isDiscarded() {
					t.Error("what the first network has left stays open")
				}
				if got := r.stored(lease); got.Subnet != lease {
					t.Fatalf("the lease is gone after %v", 10*rigTTL)
				}
				if r.network() != nil {
					t.Fatal("a network that cannot be")
				}
				if got := r.state.get(); got.network != nil || got.sides[inet.IPv4].problem == "" {
					t.Errorf("the state is %+v", got)
				}
				r.mu.Lock()
				ups := r.ups
				r.mu.Unlock()
				if most := int(10 * rigTTL / (500 * time.Millisecond)); tt.up != nil && (ups < 10 || ups > most) {
					t.Errorf("%d attempts in %v", ups, 10*rigTTL)
				}
				r.fail(nil, nil)
				time.Sleep(5 * time.Second)
				if n := r.network(); n == nil || n.lease.Subnet != lease {
					t.Fatalf("the network is %+v, want one for %v", n, lease)
				}
				if got := r.state.get(); got.sides[inet.IPv4].problem != "" {
					t.Errorf("the problem is still %q", got.sides[inet.IPv4].problem)
				}
				s.end(t)
			})
		})
	}
}

// Another change of the uplink ends a pause between attempts.
func TestUplinkChangeEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.supervise(r.join())
		r.network()
		r.fail(nil, errUnusable)
		r.uplinks <- eth1
		synctest.Wait()
		r.fail(nil, nil)
		began := time.Now()
		r.uplinks <- uplink.Uplink{Index: 4, Name: "eth2", MTU: 1500, Addr: netip.MustParseAddr("192.0.2.30")}
		if n := r.network(); n == nil || n.lease.Attrs.PublicIP.String() != "192.0.2.30" || time.Since(began) != 0 {
			t.Errorf("after %v the network is %+v", time.Since(began), n)
		}
	})
}

// A start whose network cannot be set up fails; so does a network that breaks.
func TestFailuresThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		r.fail(nil, errUnusable)
		s := r.supervise(m)
		setup := (*networkSetupError)(nil)
		if err := <-s.ended; !errors.Is(err, errUnusable) || !errors.As(err, &setup) {
			t.Errorf("Run returned %v", err)
		}
		r.fail(nil, nil)
		s = r.supervise(m)
		n := r.network()
		n.breaks <- errUnusable
		if err := <-s.ended; !errors.Is(err, errUnusable) || !n.isClosed() {
			t.Errorf("Run returned %v, network closed: %v", err, n.isClosed())
		}
	})
}

// A network whose removal fails is replaced all the same. At the end of the run the
// error is not lost.
func TestFailedClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		s := r.supervise(r.join())
		first := r.network()
		first.failClose(errUnusable)
		r.uplinks <- eth1
		second := r.network()
		if second == nil || !first.isClosed() || r.state.get().sides[inet.IPv4].uplink != eth1 {
			t.Fatalf("the second network is %+v", second)
		}
		second.failClose(errUnusable)
		s.stop()
		if err := <-s.ended; !errors.Is(err, errUnusable) {
			t.Errorf("Run returned %v, want %v", err, errUnusable)
		}
	})
}

// A device that was deleted gives a new network for the same uplink and lease.
func TestDeletedDeviceIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		lease, before := m.lease.Subnet, r.state.get().sides[inet.IPv4].uplink
		r.supervise(m)
		first := r.network()
		first.breaks <- backend.ErrGone
		if second := r.network(); second == nil || second.lease.Subnet != lease || !first.isClosed() || r.state.get().sides[inet.IPv4].uplink != before {
			t.Errorf("the second network is %+v", second)
		}
	})
}

// A program that deletes each device does not cause a hot loop, and no new connection
// to the store. A device that lasted is replaced at once.
func TestDevicesThatAreDeletedAreSpaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		r.supervise(m)
		for began := time.Now(); time.Since(began) < time.Minute; {
			select {
			case n := <-r.networks:
				n.breaks <- backend.ErrGone
			case <-time.After(10 * time.Second):
				t.Fatal("no network within 10 s")
			}
		}
		r.mu.Lock()
		ups := r.ups
		r.mu.Unlock()
		if ups > 100 || r.opened.Load() != 1 {
			t.Errorf("%d networks in a minute, with %d connections to the store", ups, r.opened.Load())
		}
		time.Sleep(2 * steadyAfter)
		r.network().breaks <- backend.ErrGone
		if n := r.network(); n == nil || n.lease.Subnet != m.lease.Subnet {
			t.Errorf("the network after one that lasted is %+v", n)
		}
	})
}

// A lost lease ends the run, with a network and in a pause without one. What
// would keep forwarding in the kernel is removed.
func TestLostLeaseEnds(t *testing.T) {
	for _, paused := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			m := r.join()
			lease := m.lease.Subnet
			s := r.supervise(m)
			n := r.network()
			if paused {
				r.fail(nil, errUnusable)
				r.uplinks <- eth1
				synctest.Wait()
			}
			l := r.stored(lease)
			another := l.Attrs
			another.PublicIP, another.NodeID = netip.MustParseAddr("192.0.2.99"), "another"
			if _, err := r.store.Update(t.Context(), l, another, 24*time.Hour); err != nil {
				t.Fatal(err)
			}
			if err := <-s.ended; !errors.Is(err, subnet.ErrLost) {
				t.Errorf("paused %v: Run returned %v", paused, err)
			}
			if got := r.noted(&r.removed); !slices.Equal(got, []string{"alloc 10.5.0.0/16"}) || !n.isClosed() {
				t.Errorf("paused %v: removed %q, network closed: %v", paused, got, n.isClosed())
			}
		})
	}
}
