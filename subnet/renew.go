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
	// never is far in the future and safe from overflow.
	never = 100 * 365 * 24 * time.Hour
)

// Renew keeps l until ctx ends (nil). It extends the lease RenewMargin before
// its end, and checks it at once after a change of our key that Watch saw. It
// fails with ErrLost if another host has the subnet; the error names that host.
func (m *Manager) Renew(ctx context.Context, l Lease) error {
	due := m.options.Clock() + m.untilRenewal(l)
	for {
		if !m.waitUntil(ctx, due) {
			return nil
		}
		renewed, err := backoff.Retry(ctx, fmt.Sprintf("renew lease %v", l.Subnet), func() (Lease, error) {
			if err := m.checkAdoptedConfig(ctx); err != nil { // promise: config-before-first-write
				return Lease{}, err
			}
			l.Attrs = m.current(l.Attrs)
			renewed, err := m.holder.Renew(ctx, l, m.former)
			if errors.Is(m.record(err), ErrLost) {
				err = backoff.Permanent(err)
			}
			return renewed, err
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
		due = m.options.Clock() + m.untilRenewal(l)
	}
}

// waitUntil returns true when the clock reaches due or our key has changed, and
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
		left := due - m.options.Clock()
		if left <= 0 {
			return true
		}
		timer.Reset(min(left, clock.UntilTick(checkInterval))) // promise: suspend-is-noticed
	}
}

// untilRenewal returns the time to the next renewal, shortened at random by up
// to a tenth, so that hosts that started together drift apart.
func (m *Manager) untilRenewal(l Lease) time.Duration {
	if l.Expiration.IsZero() {
		return never // it does not end
	}
	wait := time.Until(l.Expiration) - m.options.RenewMargin
	if wait <= 0 {
		return 0
	}
	return wait - time.Duration(rand.Int64N(int64(wait)/10+1)) // promise: renewal-has-jitter
}
