package daemon

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest"
)

// saveCheckpoint saves the checkpoint of a run that had 10.5.7.0/24 and one peer.
func (r *rig) saveCheckpoint() checkpoint {
	r.Helper()
	config, err := subnet.ParseConfig([]byte(rigConfig))
	if err != nil {
		r.Fatal(err)
	}
	c := checkpoint{
		API: "3", Config: *config,
		Lease:   subnet.Lease{Subnet: subnetOf(7), Attrs: subnet.Attrs{PublicIP: r.state.get().sides[inet.IPv4].publicIP}, Expiration: time.Now().Add(time.Hour)},
		Peers:   []*subnet.Lease{{Subnet: subnetOf(8), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.8"), BackendType: "alloc"}}},
		Written: clock.Now(), Ends: clock.SinceBoot() + time.Hour,
	}
	if err := r.checkpoints.save(c); err != nil {
		r.Fatal(err)
	}
	return c
}

// A store that does not answer for storeTimeout is replaced by the checkpoint:
// lease, peers and configuration of the last run.
func TestJoinFromCheckpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		last := r.saveCheckpoint()
		r.store.SetDown(errUnusable)
		began := time.Now()
		m := r.join()
		if took := time.Since(began); took < storeTimeout || took > storeTimeout+time.Second {
			t.Errorf("it took %v, want %v", took, storeTimeout)
		}
		if m.lease.Subnet != last.Lease.Subnet || m.config.Network != last.Config.Network {
			t.Errorf("joined as %v in %v", m.lease, m.config.Network)
		}
		if left := time.Until(m.lease.Expiration); left < 59*time.Minute || left > time.Hour {
			t.Errorf("the lease ends in %v, want an hour", left)
		}
		if got := r.state.get(); got.manager != m.manager || got.config != m.config || got.store.Source != m.store.Source {
			t.Errorf("the state is %+v", got)
		}
		r.supervise(m)
		if n := r.network(); n == nil || !n.has(subnetOf(8)) || !r.state.wasReady() {
			t.Errorf("the network is %+v, ready: %v", n, r.state.wasReady())
		}
	})
}

// A lease without an end is no reservation, and goes on from the checkpoint. A store
// that has lost its data, configuration included, is no reason to stop.
func TestJoinFromCheckpointOfLeaseWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRigAt(t, subnettest.NewFake(), "192.0.2.10")
		last := r.saveCheckpoint()
		last.Lease.Expiration, last.Ends = time.Time{}, 0
		if err := r.checkpoints.save(last); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		m := r.join()
		if took := time.Since(began); took > 2*storeTimeout {
			t.Errorf("it took %v", took)
		}
		r.supervise(m)
		if n := r.network(); n == nil || n.lease.Subnet != subnetOf(7) || !n.has(subnetOf(8)) {
			t.Errorf("the network is %+v", n)
		}
		if got := r.reporter.full().NotReady; len(got) > 0 {
			t.Errorf("not ready: %q", got)
		}
		if got := r.reporter.readyLine(m.config, m.lease, &fakeNetwork{}); !strings.Contains(got, " expires=never ") {
			t.Errorf("a lease without an end expires: %s", got)
		}
	})
}

// A store that answers in time decides, and gives the checkpoint's subnet again.
func TestJoinPrefersTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.saveCheckpoint()
		r.store.SetDown(errUnusable)
		time.AfterFunc(storeTimeout/2, func() { r.store.SetDown(nil) })
		m := r.join()
		if got := r.stored(subnetOf(7)); m.lease.Subnet != subnetOf(7) || got.Attrs.PublicIP != r.state.get().sides[inet.IPv4].publicIP {
			t.Errorf("joined as %v, the store has %v", m.lease, got)
		}
	})
}

// Without a checkpoint of a lease that still lasts, a start waits for the store.
func TestJoinWaitsForTheStore(t *testing.T) {
	for _, other := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			if other { // a lease of the address that the host had before
				r.saveCheckpoint()
				r.joiner.underlay.set(eth1)
			}
			r.store.SetDown(errUnusable)
			began := time.Now()
			time.AfterFunc(time.Hour, func() { r.store.SetDown(nil) })
			m := r.join()
			if took := time.Since(began); took < time.Hour || took > time.Hour+5*time.Second {
				t.Errorf("it took %v, want an hour", took)
			}
			if !m.lease.Subnet.IsValid() {
				t.Error("no lease")
			}
			if other && m.lease.Subnet != subnetOf(7) {
				t.Errorf("got %v, want the last run's %v", m.lease.Subnet, subnetOf(7))
			}
		})
	}
}

func TestJoinEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.store.SetDown(errUnusable)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if m, err := r.joiner.join(ctx); m != nil || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("joined as %v, %v", m, err)
		}
	})
}

// A host whose disk is a copy of a living host's takes a new identity, and another
// subnet.
func TestClonedHostGetsANewIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		owner := newRig(t)
		m := owner.join()
		owner.supervise(m)
		owner.network()
		clone := newRigAt(t, owner.store, "192.0.2.11")
		if err := os.CopyFS(clone.options.stateDir, os.DirFS(owner.options.stateDir)); err != nil {
			t.Fatal(err)
		}
		got := clone.join()
		id, err := nodeid.Load(clone.options.stateDir)
		if err != nil {
			t.Fatal(err)
		}
		if got.lease.Subnet == m.lease.Subnet || got.lease.Attrs.NodeID == m.lease.Attrs.NodeID || got.lease.Attrs.NodeID != id.String() {
			t.Errorf("the clone is %v with %v, the owner %v with %v", got.lease, got.lease.Attrs.NodeID, m.lease, m.lease.Attrs.NodeID)
		}
		if l := owner.stored(m.lease.Subnet); l.Attrs.NodeID != m.lease.Attrs.NodeID || l.Attrs.PublicIP != m.lease.Attrs.PublicIP {
			t.Errorf("the owner's lease is now %+v", l)
		}
	})
}

// A backend that refuses the new uplink leaves the lease as it is, for the next try.
func TestRejoinRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		m := r.join()
		lease := m.lease
		r.fail(errUnusable, nil)
		setup := (*networkSetupError)(nil)
		if err := r.joiner.rejoin(t.Context(), m, eth1); !errors.Is(err, errUnusable) || !errors.As(err, &setup) {
			t.Errorf("rejoin = %v", err)
		}
		if m.lease.Subnet != lease.Subnet || !m.lease.Attrs.Equal(lease.Attrs) || len(m.formerIPs) > 0 {
			t.Errorf("the lease is %v, former addresses %v", m.lease, m.formerIPs)
		}
		r.fail(nil, nil)
		if err := r.joiner.rejoin(t.Context(), m, eth1); err != nil {
			t.Fatal(err)
		}
		if m.lease.Subnet != lease.Subnet || m.lease.Attrs.PublicIP != eth1.Addr || !slices.Equal(m.formerIPs, []netip.Addr{lease.Attrs.PublicIP}) {
			t.Errorf("the lease is %v, former addresses %v", m.lease, m.formerIPs)
		}
	})
}

// A refused uplink does not cost the peers. Those that left meanwhile leave the set,
// and a store that is away does not empty it.
func TestRefusedUplinkKeepsThePeers(t *testing.T) {
	for _, away := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			stays, leaves := subnetOf(200), subnetOf(201)
			r.addPeer(stays, "192.0.2.1")
			r.addPeer(leaves, "192.0.2.2")
			r.supervise(r.join())
			if n := r.network(); n == nil || !n.has(stays) || !n.has(leaves) {
				t.Fatalf("the first network is %+v", n)
			}
			r.fail(errUnusable, nil)
			r.uplinks <- eth1
			time.Sleep(10 * time.Second)
			if away {
				r.store.SetDown(errUnusable)
			} else if err := r.store.Delete(t.Context(), r.stored(leaves)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			r.fail(nil, nil)
			time.Sleep(10 * time.Second)
			if n := r.network(); n == nil || !n.has(stays) || n.has(leaves) != away {
				t.Errorf("store away %v: the second network is %+v", away, n)
			}
			if r.peers.has(leaves) != away || !r.peers.has(stays) || !r.state.get().applied {
				t.Errorf("store away %v: the peers are %v", away, r.peers.subnets(inet.IPv4))
			}
		})
	}
}

// Tries with one uplink use one connection to the store.
func TestRefusedUplinkKeepsTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.supervise(r.join())
		r.network()
		r.fail(errUnusable, nil)
		r.uplinks <- eth1
		time.Sleep(time.Minute)
		if got := r.opened.Load(); got != 2 {
			t.Errorf("%d connections to the store for two uplinks", got)
		}
	})
}

// A -network that this host cannot use is refused before the store is opened.
func TestUnusableNetworkIsNotPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.options.networkText = "10.6.0.0/16"
		if err := r.options.parseNetwork(); err != nil {
			t.Fatal(err)
		}
		r.fail(errUnusable, nil)
		if _, err := r.joiner.join(t.Context()); !errors.Is(err, errUnusable) || r.state.get().store.Source != nil {
			t.Errorf("join = %v", err)
		}
	})
}
