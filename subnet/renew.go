package subnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
)

const (
	// lookEvery is how often the clock is looked at: Go's timers go by
	// CLOCK_MONOTONIC, which stands still in a suspended machine
	// (clock_gettime(2)), whereas the store's leases run out.
	lookEvery = 30 * time.Second
	// never is far away, and far from an overflow.
	never = 100 * 365 * 24 * time.Hour
)

// Renew keeps l ours until ctx ends (nil): it extends the lease RenewMargin
// before its end, and looks at once when Watch saw the key change. A key that
// has vanished is created again. It fails with ErrLost only when another host
// has taken the subnet, and then names it.
func (m *Manager) Renew(ctx context.Context, l Lease) error {
	due := m.terms.Clock() + m.untilRenewal(l)
	for {
		if !m.waitUntil(ctx, due) {
			return nil
		}
		renewed, err := backoff.Retry(ctx, fmt.Sprintf("renew lease %v", l.Subnet), func() (Lease, error) {
			if err := m.readAdopted(ctx); err != nil {
				return Lease{}, err
			}
			l.Attrs = m.current(l.Attrs)
			return m.extend(ctx, l)
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("renew lease %v: %w", l.Subnet, err)
		}
		l = renewed
		m.setLease(l)
		log.Infof("renewed lease subnet=%v expires=%v", l.Subnet, l.Expiration.Format(time.RFC3339))
		due = m.terms.Clock() + m.untilRenewal(l)
	}
}

// waitUntil returns true when the clock is at due or our key has changed, and
// false when ctx ends.
func (m *Manager) waitUntil(ctx context.Context, due time.Duration) bool {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-m.ownChanged:
			return true
		case <-timer.C:
		}
		left := due - m.terms.Clock()
		if left <= 0 {
			return true
		}
		timer.Reset(min(left, clock.UntilTick(lookEvery)))
	}
}

// untilRenewal is the time to the next renewal, shortened at random by up to a
// tenth of what is left, so that hosts that started together drift apart.
func (m *Manager) untilRenewal(l Lease) time.Duration {
	if l.Reserved {
		return never // it has no end
	}
	wait := time.Until(l.Expiration) - m.terms.RenewMargin
	if wait <= 0 {
		return 0
	}
	return wait - time.Duration(rand.Int64N(int64(wait)/10+1))
}

// extend renews l, or repairs it; the error is permanent if that cannot be.
func (m *Manager) extend(ctx context.Context, l Lease) (Lease, error) {
	renewed, err := m.reg.Update(ctx, l, m.terms.TTL)
	if errors.Is(m.answered(err), ErrLost) {
		return m.repair(ctx, l)
	}
	return renewed, err
}

// repair is for a key that is no longer what we last wrote. If it still names
// us (a write of ours whose answer was lost, or an operator's edit), we go on
// from there; if nobody holds the subnet, we create it again; if somebody
// does, we have lost it.
func (m *Manager) repair(ctx context.Context, l Lease) (Lease, error) {
	leases, _, err := m.reg.List(ctx)
	if m.answered(err) != nil {
		return Lease{}, fmt.Errorf("list leases: %w", err)
	}
	for _, own := range leases {
		if own.Subnet == l.Subnet && m.names(own.Attrs, l.Attrs) {
			if own.Attrs.PublicIP == l.Attrs.PublicIP && strange(own, l.Attrs) {
				return Lease{}, backoff.Permanent(fmt.Errorf("%v has our public IP: node %s (hostname %q): %w",
					own, own.Attrs.NodeID, own.Attrs.Hostname, ErrLost))
			}
			own.Attrs = l.Attrs
			renewed, err := m.reg.Update(ctx, own, m.terms.TTL)
			return renewed, m.answered(err)
		}
	}
	for _, other := range leases {
		if other.Subnet.Overlaps(l.Subnet) {
			return Lease{}, backoff.Permanent(fmt.Errorf("subnet is now %v: %w", other, ErrLost))
		}
	}
	log.Warningf("lease key has vanished, create it again subnet=%v", l.Subnet)
	created, err := m.reg.Create(ctx, l, m.terms.TTL)
	return created, m.answered(err)
}

// names reports whether a lease that says stored is that of the host that says
// own: it has its address, or one that this host had before, with its NodeID. The
// NodeID alone is not enough: it may be a copy of our disk that has taken the
// lease while we were away.
func (m *Manager) names(stored, own Attrs) bool {
	return stored.PublicIP == own.PublicIP ||
		own.NodeID != "" && stored.NodeID == own.NodeID && slices.Contains(m.former, stored.PublicIP)
}
