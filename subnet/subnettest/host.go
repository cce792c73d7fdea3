package subnettest

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/coreos/flannel/subnet"
)

// Host is a Manager at work on a Fake, in a testing/synctest bubble.
type Host struct {
	Fake    *Fake
	Manager *subnet.Manager
	Lease   subnet.Lease
	// Events receives what Watch delivers, Errs the result of Renew.
	Events chan []subnet.Event
	Errs   chan error
	// Stop ends Watch and Renew.
	Stop context.CancelFunc
}

// RunHost runs Renew and Watch of m for its lease l until Stop or the end of the
// test, and waits until the bubble is idle.
func RunHost(t *testing.T, f *Fake, m *subnet.Manager, l subnet.Lease) *Host {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	h := &Host{Fake: f, Manager: m, Lease: l, Events: make(chan []subnet.Event, 1000), Errs: make(chan error, 1), Stop: cancel}
	watched := make(chan error, 1)
	go func() { h.Errs <- m.Renew(ctx, l) }()
	go func() { watched <- m.Watch(ctx, l, func(e []subnet.Event) { h.Events <- e }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-watched; err != nil {
			t.Errorf("Watch ended with %v", err)
		}
	})
	synctest.Wait()
	return h
}

// Holds reports whether the store has the host's lease.
func (h *Host) Holds(t *testing.T) bool {
	t.Helper()
	for _, l := range h.Fake.Leases(t) {
		if l.Key() == h.Lease.Key() && l.Attrs.Equal(h.Lease.Attrs) {
			return true
		}
	}
	return false
}

// End stops the host. Renew must end without an error.
func (h *Host) End(t *testing.T) {
	t.Helper()
	h.Stop()
	if err := <-h.Errs; err != nil {
		t.Errorf("Renew ended with %v", err)
	}
}

// Leases lists the leases of f.
func (f *Fake) Leases(t *testing.T) []subnet.Lease {
	t.Helper()
	leases, _ := list(t, f)
	return leases
}

// OnlyLease returns the one lease of f.
func (f *Fake) OnlyLease(t *testing.T) subnet.Lease {
	t.Helper()
	leases := f.Leases(t)
	if len(leases) != 1 {
		t.Fatalf("leases %v, want one", leases)
	}
	return leases[0]
}
