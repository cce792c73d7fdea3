// Package backoff retries what failed at growing, jittered intervals, and says
// from time to time what is being waited for, so that a host that waits does
// not look like a host that hangs.
package backoff

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	log "github.com/golang/glog"
)

const (
	// first and most bound the interval before jitter, which is ±50 %. The cap
	// keeps the way back short: a store that returns is noticed within 2.3 s.
	first = 100 * time.Millisecond
	most  = 1500 * time.Millisecond
	// SayEvery is how often a lasting failure is logged again.
	SayEvery = 30 * time.Second
)

// Retry calls op until it succeeds, ctx ends (the error is ctx's cause, and the
// last failure) or op returns an error wrapped in Permanent (the error is what
// was wrapped). What
// names the aim in the log, as in "wait for network configuration": the first
// failure is logged at once, then one every 30 s.
func Retry[T any](ctx context.Context, what string, op func() (T, error)) (T, error) {
	var said time.Time
	var last error
	began := time.Now()
	result, err := backoff.Retry(ctx, op,
		backoff.WithBackOff(New()),
		backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			last = err
			if now := time.Now(); said.IsZero() || now.Sub(said) >= SayEvery {
				said = now
				log.Warningf("%s: waiting=%v reason=%q", what, now.Sub(began).Round(time.Second), err)
			}
		}))
	if err != nil && ctx.Err() != nil && last != nil && !errors.Is(err, last) {
		err = fmt.Errorf("%w (%w)", last, err)
	}
	return result, err
}

// Permanent marks an error that no retry can mend.
func Permanent(err error) error { return backoff.Permanent(err) }

// New returns the sequence of intervals that Retry uses, for loops that are
// not one operation repeated.
func New() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = first, most
	return b
}
