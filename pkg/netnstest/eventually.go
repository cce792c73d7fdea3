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

// EventuallyWithin calls check every 10 ms until it returns nil. It fails the test
// with the last error if that takes longer than limit.
func EventuallyWithin(t Waiter, limit time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-t.Context().Done():
			t.Fatalf("%s: %v: %v", what, t.Context().Err(), err)
		}
	}
}
