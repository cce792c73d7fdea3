// Package subnet is the control plane: it decides which host owns which
// subnet, keeps our own lease, and delivers the other hosts' leases to the data
// plane.
//
//	         Acquire, Renew          List, Watch, Config
//	Holder ◄──────────────── Manager ──────────────────► Source
//	                            │
//	                     leaseSet, removalGuard ──► []Event
//
// A Manager serves every store. It reads through a Source and keeps its lease
// through a Holder; packages below this one implement both. Nothing here depends
// on how packets are carried.
package subnet

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/clock"
)

// Manager acquires, renews and watches this host's lease. Call Acquire or Adopt
// first, then Renew, Watch and WatchConfig concurrently. Renew may be called again,
// with the lease of Status. After Adopt, all of them may. Status, BadCount, Publish
// and AwaitPublished may be called at any time from any goroutine.
type Manager struct {
	source Source
	holder Holder
	config *Config
	timing Timing
	bad    BadData

	// ownChanged, of capacity one, wakes Renew after a write to our own key that
	// may not be ours.
	ownChanged chan struct{}

	// adopted are the leases with which Watch begins if peersAdopted; former are
	// the addresses that the adopted lease may still name.
	adopted      []*Lease
	peersAdopted bool
	former       []netip.Addr
	// configUnread: the configuration comes from Adopt's caller and was not
	// compared with the store's yet.
	configUnread bool

	mu     sync.Mutex // guards what follows
	status Status
	// published is the last argument of Publish, nil without. stored is closed
	// when the store has it; nil after that.
	published *Attrs
	stored    chan struct{}
}

// Timing is when leases are renewed.
type Timing struct {
	// RenewMargin is how long before its end a lease is renewed.
	RenewMargin time.Duration
	// Clock returns the time since a fixed moment, time in suspend included; nil
	// is the kernel's CLOCK_BOOTTIME.
	Clock func() time.Duration
}

// Status is the state of the control plane.
type Status struct {
	// Lease is ours; its Subnet is invalid before Acquire returned. Ends is its
	// end by Timing.Clock, which nobody can set; 0 if it does not end. Expired
	// reports whether that is over.
	Lease   Lease
	Ends    time.Duration
	Expired bool
	// Peers is the number of leases in the data plane. Synced reports whether it
	// has received the first full set. Held is how many of the peers are gone from
	// the store in a mass disappearance, and are kept for now.
	Peers, Held int
	Synced      bool
	// ConfigRefused is why the store's present configuration is not in use; ""
	// if it is.
	ConfigRefused string
	// AcquireError is why Acquire still waits; nil if it does not.
	AcquireError error
	// StoreError is the last failure to reach the store, nil while it answers;
	// Since is when that began.
	StoreError error
	Since      time.Time
}

// NewManager returns a Manager for the store that s and h give access to, and
// for the configuration c.
func NewManager(s Source, h Holder, c *Config, t Timing) *Manager {
	if t.Clock == nil {
		t.Clock = clock.SinceBoot
	}
	return &Manager{source: s, holder: h, config: c, timing: t,
		ownChanged: make(chan struct{}, 1), status: Status{Since: time.Now()}}
}

// Status returns a snapshot. The lease's Expiration is computed from Ends: a time
// that was computed before a suspend is too late.
func (m *Manager) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.status
	if s.Ends == 0 {
		return s
	}
	left := s.Ends - m.timing.Clock()
	s.Expired = left < 0
	if (left - time.Until(s.Lease.Expiration)).Abs() > time.Second {
		s.Lease.Expiration = time.Now().Add(left)
	}
	return s
}

// BadCount returns how many times a lease that parses was left out: it overlaps
// another, lies outside Network, or names our address or subnet.
func (m *Manager) BadCount() uint64 { return m.bad.Count() }

// Acquire obtains the lease from the Holder; see Holder.Acquire.
func (m *Manager) Acquire(ctx context.Context, a Attrs, h Hints) (Lease, error) {
	began := m.begin()
	l, err := m.holder.Acquire(ctx, a, h, func(err error) {
		m.record(err)
		m.setAcquireError(err)
	})
	if err == nil {
		m.setLease(l, began.suspended())
	}
	return l, err
}

// Adopt replaces Acquire at a start while the store is away, and begins another
// network with the lease of the one before, when Renew, Watch and WatchConfig have
// returned. own is this host's lease; what Publish set is forgotten. As soon as the
// store answers, Renew compares the configuration and renews own. It fails with
// ErrLost if another host has taken the subnet. former are the addresses that this
// host had while it held own: the stored lease may name one of them.
func (m *Manager) Adopt(own Lease, former ...netip.Addr) {
	m.former, m.configUnread = slices.Clone(former), true
	m.adopted, m.peersAdopted = nil, false
	m.mu.Lock()
	m.published, m.stored, m.status.Synced = nil, nil, false
	m.mu.Unlock()
	m.setLease(own, 0)
	m.wakeRenew()
}

// AdoptPeers has Watch begin with leases, those of the peers at an earlier time.
func (m *Manager) AdoptPeers(leases []*Lease) {
	m.adopted, m.peersAdopted = slices.Clone(leases), true
}

// span is a time that began at monotonic and boot, by both clocks.
type span struct {
	monotonic time.Time
	boot      time.Duration
	clock     func() time.Duration
}

func (m *Manager) begin() span { return span{time.Now(), m.timing.Clock(), m.timing.Clock} }

// suspended returns how much of the span the host spent in suspend, where
// CLOCK_MONOTONIC, the clock of time.Time, stands still (clock_gettime(2)).
func (s span) suspended() time.Duration {
	return max(0, s.clock()-s.boot-time.Since(s.monotonic))
}

// setLease records our lease, whose Expiration was computed up to the time
// suspended ago by a clock that stands in suspend.
func (m *Manager) setLease(l Lease, suspended time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Lease, m.status.Ends = l, 0
	if end, ends := l.Ends(); ends {
		m.status.Ends = m.timing.Clock() + time.Until(end) - suspended
	}
	if m.stored != nil && l.Attrs.Equal(m.toPublishLocked(l.Attrs)) {
		close(m.stored)
		m.stored = nil
	}
}

func (m *Manager) setAcquireError(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.AcquireError = err
}

func (m *Manager) setPeers(n, held int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Peers, m.status.Held, m.status.Synced = n, held, true
}

// record notes whether the store can be reached, by the outcome of a call to
// it, and returns err.
func (m *Manager) record(err error) error {
	failure := err
	if IsAnswer(err) {
		failure = nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if (m.status.StoreError == nil) != (failure == nil) {
		m.status.Since = time.Now()
	}
	m.status.StoreError = failure
	return err
}
