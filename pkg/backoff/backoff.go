// Package backoff retries failed operations at growing, jittered intervals, and
// logs the failure from time to time, so that waiting does not look like hanging.
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
	// minInterval and maxInterval bound the interval before its jitter of ±50 %. A
	// store that returns is noticed within 2.3 s.
	minInterval = 100 * time.Millisecond
	maxInterval = 1500 * time.Millisecond
	// LogInterval is the time between log lines of a lasting failure.
	LogInterval = 30 * time.Second
)

// Retry calls op until it succeeds, ctx ends or op returns an error from
// Permanent. The error is ctx's cause with the last failure, or the error that was
// given to Permanent. What names the operation in the log, e.g. "wait for network
// configuration". Retry logs the first failure, and one every LogInterval.
func Retry[T any](ctx context.Context, what string, op func() (T, error)) (T, error) {
	var logged time.Time
	var last error
	began := time.Now()
	result, err := backoff.Retry(ctx, op,
		backoff.WithBackOff(New()),
		backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(err error, _ time.Duration) {
			last = err
			if now := time.Now(); logged.IsZero() || now.Sub(logged) >= LogInterval {
				logged = now
				log.Warningf("%s: waiting=%v reason=%q", what, now.Sub(began).Round(time.Second), err)
			}
		}))
	if err != nil && ctx.Err() != nil && last != nil && !errors.Is(err, last) {
		err = fmt.Errorf("%w (%w)", last, err)
	}
	return result, err
}

// Permanent marks an error that ends Retry.
func Permanent(err error) error { return backoff.Permanent(err) }

// New returns the intervals of Retry, for loops of another form.
func New() *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval = minInterval, maxInterval
	return b
}
