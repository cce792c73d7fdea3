package netnstest

import (
	"context"
	"time"
)

// Patience bounds every wait of Eventually. No test waits for a time to pass.
const Patience = 30 * time.Second

// Waiter is the part of [testing.TB] that [Eventually] needs.
type Waiter interface {
	Helper()
	Fatalf(format string, args ...any)
	Context() context.Context
}

// Eventually calls check every 10 ms until it returns nil. It fails the test with
// the last error if that takes longer than Patience.
func Eventually(t Waiter, what string, check func() error) {
	t.Helper()
	deadline := time.NewTimer(Patience)
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
			t.Fatalf("%s: not within %v: %v", what, Patience, err)
		case <-t.Context().Done():
			t.Fatalf("%s: %v: %v", what, t.Context().Err(), err)
		}
	}
}
