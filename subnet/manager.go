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
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/clock"
)

// Manager acquires, renews and watches one lease of ours. Acquire or Adopt comes
// first, once; then Renew, Watch and WatchConfig, side by side. Watch is called
// once; Renew again, from where Status says, while there is no network to watch
// for. Status, BadCount, Publish and AwaitPublished may be called at any time from
// any goroutine.
type Manager struct {
	reg    Registry
	config *Config
	terms  Terms
	bad    BadData

	// ownChanged, of capacity one, tells Renew that Watch saw a write to our
	// own key that we may not have made.
	ownChanged chan struct{}

	// adopted are Adopt's leases, former the addresses that its lease may still
	// name; nil without.
	adopted []*Lease
	former  []netip.Addr
	// unread: the configuration is a remembered one, and the store's may be
	// another.
	unread bool

	mu     sync.Mutex // guards what follows
	status Status
	// heard is when the store answered last.
	heard time.Time
	// published is what Publish was given last; nil without. taken is closed when
	// the store has taken it; nil since.
	published *Attrs
	taken     chan struct{}
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
	// Patience is for how long Acquire bears a store that says nothing
	// (ErrSilent); 0 is for ever.
	Patience time.Duration
}

// Status is what the control plane knows of itself.
type Status struct {
	// Lease is ours; its Subnet is invalid before Acquire returned. Ends is when
	// it ends by Terms.Clock, which nobody sets; 0 where it is Reserved.
	Lease Lease
	Ends  time.Duration
	// Peers is how many leases the data plane was told of, Synced whether the
	// first full set was. Held is how many of them the store has lost in a mass
	// disappearance, and are kept for the time being.
	Peers, Held int
	Synced      bool
	// ConfigRefused says why the store's present configuration is not the one
	// that we work by; "" while it is.
	ConfigRefused string
	// StoreError is the last failure to reach the store, nil while it answers;
	// Since is when that began.
	StoreError error
	Since      time.Time
}

// NewManager returns a Manager for the given configuration.
func NewManager(reg Registry, c *Config, t Terms) *Manager {
	if t.Clock == nil {
		t.Clock = clock.SinceBoot
	}
	return &Manager{reg: reg, config: c, terms: t, ownChanged: make(chan struct{}, 1),
		status: Status{Since: time.Now()}, heard: time.Now()}
}

// Status is a snapshot.
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
	m.status.Lease, m.status.Ends = l, 0
	if !l.Reserved {
		m.status.Ends = m.terms.Clock() + time.Until(l.Expiration)
	}
	if m.taken != nil && l.Attrs.Equal(m.latest(l.Attrs)) {
		close(m.taken)
		m.taken = nil
	}
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
	if reached == nil {
		m.heard = time.Now()
	}
	return err
}

// silence is for how long the store has said nothing.
func (m *Manager) silence() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.heard)
}

// Adopt takes up own, a lease that was ours when the store was last seen, and
// the leases of that time, in Acquire's place: for a start while the store is
// away. Watch begins with these leases; nil: they are not known. Renew reads the
// configuration and asks the store about own as soon as it answers, and fails
// with ErrLost if another host has the subnet by then. former are the addresses
// that this host had while it held own: the store may know it by one of them.
func (m *Manager) Adopt(own Lease, leases []*Lease, former ...netip.Addr) {
	m.adopted, m.former, m.unread = slices.Clone(leases), slices.Clone(former), true
	m.setLease(own)
	m.ownChanged <- struct{}{} // the first to use its one place
}
