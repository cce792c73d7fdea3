package subnet

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
)

const (
	// checkInterval is how often Renew reads the clock. Go's timers follow
	// CLOCK_MONOTONIC, which stops in suspend (clock_gettime(2)); the store's
	// leases expire meanwhile.
	checkInterval = 30 * time.Second
	// lookInterval is how often Renew looks at our own key.
	lookInterval = time.Minute
	// never is far in the future and safe from overflow.
	never = 100 * 365 * 24 * time.Hour
)

// Renew keeps l, the lease of Status, until ctx ends (nil). It extends the lease
// RenewMargin before its end. It looks at our key each minute, and at once after a
// change of it, or of an overlapping one, that Watch saw. It fails with ErrLost if
// another host has the subnet, or with ErrPartLost; the error names that host.
func (m *Manager) Renew(ctx context.Context, l Lease) error {
	for {
		due := m.renewalDue()
		if !m.waitUntil(ctx, l, due) {
			return nil
		}
		began := m.begin()
		notable := began.boot >= due || m.configUnread // otherwise only our key changed
		renewed, err := backoff.Retry(ctx, "renew lease "+l.Subnets(), func() (Lease, error) {
			if err := m.checkAdoptedConfig(ctx); err != nil { // promise: config-before-first-write
				return Lease{}, err
			}
			began = m.begin()
			renewed, err := m.holder.Renew(ctx, l, m.toPublish(l.Attrs), m.former)
			if m.record(err); errors.Is(err, ErrLost) || errors.Is(err, ErrPartLost) {
				err = backoff.Permanent(err)
			}
			return renewed, err
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("renew lease %s: %w", l.Subnets(), err)
		}
		l = renewed
		m.setLease(l, began.suspended())
		if notable {
			log.Infof("renewed lease subnet=%s expires=%s", l.Subnets(), l.Expiry())
		}
	}
}

// waitUntil returns true when the clock reaches due or l's key has changed, and
// false when ctx ends.
func (m *Manager) waitUntil(ctx context.Context, l Lease, due time.Duration) bool {
	look := m.timing.Clock() + lookInterval
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
		now := m.timing.Clock()
		if now >= due {
			return true
		}
		if now >= look {
			look = now + lookInterval
			if errors.Is(m.record(m.holder.Check(ctx, l)), ErrConflict) {
				return true
			}
		}
		timer.Reset(min(due-now, clock.UntilTick(checkInterval))) // promise: suspend-is-noticed
	}
}

// renewalDue returns when to renew our lease, by Timing.Clock. The time until
// then is shortened at random by up to a tenth, so that hosts that started together
// drift apart.
func (m *Manager) renewalDue() time.Duration {
	now, ends := m.timing.Clock(), m.Status().Ends
	if ends == 0 {
		return now + never
	}
	wait := ends - m.timing.RenewMargin - now
	if wait <= 0 {
		return now
	}
	return now + wait - time.Duration(rand.Int64N(int64(wait)/10+1)) // promise: renewal-has-jitter
}
