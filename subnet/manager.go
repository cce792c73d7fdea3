// Package subnet is the control plane: it decides which host owns which
// subnet, keeps our own lease, and tells the data plane about everybody
// else's.
//
//	          Acquire, Renew                 Watch
//	Manager ◄───────────────► Registry ──────────────► leaseSet ──► []Event
//	                       (etcd v3, etcd v2)           (diff)
//
// A Manager talks to its store through a Registry; the folders below implement
// one each. Nothing here knows how packets move.
package subnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
)

// Manager acquires, renews and watches leases. Each method is called once, in
// the order Acquire or Adopt, then Renew and Watch side by side; Status any time.
type Manager struct {
	reg    Registry
	config *Config
	terms  Terms
	bad    BadData

	// ownChanged, of capacity one, tells Renew that Watch saw a write to our
	// own key that we may not have made.
	ownChanged chan struct{}

	// adopted are Adopt's leases; nil without.
	adopted []Lease

	mu     sync.Mutex // guards what follows
	status Status
}

// Terms is for how long a lease is taken, and when it is renewed.
type Terms struct {
	// TTL is the lease's length; the store forgets it after that.
	TTL time.Duration
	// RenewMargin is how long before the end of the lease it is renewed.
	RenewMargin time.Duration
	// Clock counts time from some moment on, that in which the machine is
	// suspended included; nil is the kernel's CLOCK_BOOTTIME.
	Clock func() time.Duration
}

// Status is what the control plane knows of itself.
type Status struct {
	// Lease is ours; its Subnet is invalid before Acquire returned.
	Lease Lease
	// Peers is how many leases the data plane was told of, Synced whether the
	// first full set was. Held is how many of them the store has lost in a mass
	// disappearance, and are kept for the time being.
	Peers, Held int
	Synced      bool
	// StoreError is the last failure to reach the store, nil while it answers;
	// Since is when that began.
	StoreError error
	Since      time.Time
}

// NewManager returns a Manager for the given configuration.
func NewManager(reg Registry, c *Config, t Terms) *Manager {
	if t.Clock == nil {
		t.Clock = sinceBoot
	}
	return &Manager{reg: reg, config: c, terms: t, ownChanged: make(chan struct{}, 1),
		status: Status{Since: time.Now()}}
}

// Status is a snapshot; safe to call at any time from any goroutine.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// BadCount is how many times a lease was left out though it parses: because it
// overlaps another, lies outside Network, or claims what is ours.
func (m *Manager) BadCount() uint64 { return m.bad.Count() }

func (m *Manager) setLease(l Lease) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Lease = l
}

func (m *Manager) setPeers(n, held int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Peers, m.status.Held, m.status.Synced = n, held, true
}

// answered records the outcome of a call to the store and passes it on.
func (m *Manager) answered(err error) error {
	reached := err
	for _, answer := range []error{ErrNoConfig, ErrExists, ErrLost, ErrCompacted} {
		if errors.Is(err, answer) {
			reached = nil // a refusal is an answer
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if (m.status.StoreError == nil) != (reached == nil) {
		m.status.Since = time.Now()
	}
	m.status.StoreError = reached
	return err
}

// Acquire takes a subnet for the host that attrs describes: the one that it
// holds already, by its public IP; else prev, if that is free; else a free one
// at random. When another host is faster, it chooses again; while the store
// does not answer, it waits. Errors: ErrFull, or ctx's.
func (m *Manager) Acquire(ctx context.Context, attrs Attrs, prev netip.Prefix) (Lease, error) {
	a := acquisition{Manager: m, attrs: attrs, prev: prev}
	l, err := backoff.Retry(ctx, "acquire subnet", func() (Lease, error) {
		l, err := a.try(ctx)
		if errors.Is(err, ErrFull) {
			err = backoff.Permanent(err)
		}
		return l, err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("acquire subnet: %w", err)
	}
	m.setLease(l)
	return l, nil
}

// Adopt takes up own, a lease that was ours when the store was last seen, and
// the leases of that time, in Acquire's place: for a start while the store is
// away. Watch begins with these leases. Renew asks the store about own as soon
// as it answers, and fails with ErrLost if another host has the subnet by then.
func (m *Manager) Adopt(own Lease, leases []Lease) {
	m.adopted = append([]Lease{}, leases...)
	m.setLease(own)
	m.ownChanged <- struct{}{} // the first to use its one place
}

// acquisition is one host's attempt to get a subnet.
type acquisition struct {
	*Manager
	attrs Attrs
	prev  netip.Prefix
	// refused are keys that Create found taken though List did not show them:
	// another host was faster, or the key's value does not parse.
	refused []netip.Prefix
}

func (a *acquisition) try(ctx context.Context) (Lease, error) {
	for {
		leases, _, err := a.reg.List(ctx)
		if a.answered(err) != nil {
			return Lease{}, fmt.Errorf("list leases: %w", err)
		}
		l, err := a.reuse(ctx, leases)
		if err == nil && !l.Subnet.IsValid() {
			l, err = a.create(ctx, leases)
		}
		if errors.Is(err, ErrExists) || errors.Is(err, ErrLost) {
			log.Infof("another host was faster, choose again: %v", err)
			continue
		}
		return l, err
	}
}

// reuse takes over the lease that already names our public IP, and removes one
// that the configuration no longer allows. It returns the zero Lease if there
// is none to take over.
func (a *acquisition) reuse(ctx context.Context, leases []Lease) (Lease, error) {
	for _, l := range leases {
		if l.Attrs.PublicIP != a.attrs.PublicIP || l.IPv6Subnet.IsValid() {
			continue
		}
		switch {
		case a.config.Allows(l.Subnet):
			l.Attrs = a.attrs
			taken, err := a.reg.Update(ctx, l, a.terms.TTL)
			if a.answered(err) != nil {
				return Lease{}, fmt.Errorf("take over lease %v: %w", l.Subnet, err)
			}
			log.Infof("took over own lease subnet=%v reserved=%v", taken.Subnet, taken.Reserved)
			return taken, nil
		case !l.Reserved:
			log.Infof("delete own lease subnet=%v: the configuration no longer allows it", l.Subnet)
			if err := a.answered(a.reg.Delete(ctx, l)); err != nil {
				return Lease{}, fmt.Errorf("delete lease %v: %w", l.Subnet, err)
			}
		}
	}
	return Lease{}, nil
}

func (a *acquisition) create(ctx context.Context, leases []Lease) (Lease, error) {
	taken := a.refused
	for _, l := range leases {
		taken = append(taken, l.Subnet)
	}
	choice := a.prev
	if !a.config.Allows(choice) || overlapsAny(choice, taken) {
		var err error
		if choice, err = pick(a.config, taken, newRand()); err != nil {
			return Lease{}, fmt.Errorf("choose a subnet of %v for %v: %w; %d keys are in use",
				a.config.Network, a.attrs.PublicIP, err, len(taken))
		}
	}
	l, err := a.reg.Create(ctx, Lease{Subnet: choice, Attrs: a.attrs}, a.terms.TTL)
	if errors.Is(err, ErrExists) {
		a.refused = append(a.refused, choice)
	}
	if a.answered(err) != nil {
		return Lease{}, fmt.Errorf("create lease %v: %w", choice, err)
	}
	log.Infof("created lease subnet=%v same_as_before=%v", l.Subnet, l.Subnet == a.prev)
	return l, nil
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
