package netnstest

import (
	"context"
	"time"
)

// Patience bounds a wait of Eventually. No test waits for a time to pass.
const Patience = 30 * time.Second

// Waiter is the part of [testing.TB] that [Eventually] needs.
type Waiter interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// Eventually is EventuallyWithin for Patience.
func Eventually(t Waiter, what string, check func() error) {
	t.Helper()
	EventuallyWithin(t, Patience, what, check)
}

// The pauses between two checks are a part of the time that has passed, within these
// limits. On a slow machine, checks without pauses keep the processor from what they wait
// for.
const (
	shortestPause = 10 * time.Millisecond
	longestPause  = 100 * time.Millisecond
	pausePart     = 16
)

// EventuallyWithin calls check until it returns nil, at first every 10 ms. It fails the
// test with the last error if that takes longer than limit.
func EventuallyWithin(t Waiter, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	begin := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-time.After(min(max(time.Since(begin)/pausePart, shortestPause), longestPause)):
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-t.Context().Done():
			t.Fatalf("%s: %v: %v", what, t.Context().Err(), err)
		}
	}
}
