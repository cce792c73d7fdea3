// Package reconcile runs the loop that keeps something as it should be: the
// kernel's routes and devices, nftables rules, the choice of an uplink.
//
//	netlink ──► Listener ──┐
//	other causes ──────────┼─► Signal ──► rate limit ──► Step ──► error: log it,
//	tick, retry ───────────┘                              ▲       retry with back-off
//	                                                      └──────────────┘
//
// A Step compares what is desired with what there is, and repairs the difference.
// It takes no description of a change: any number of changes cause one Step.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/ratelog"
)

// Signal carries changes to a Loop. It holds one token after any number of Set.
type Signal chan struct{}

// NewSignal returns a Signal that is not set.
func NewSignal() Signal { return make(Signal, 1) }

// Set causes a Step. It does not block, and is safe for concurrent use.
func (s Signal) Set() {
	select {
	case s <- struct{}{}:
	default: // a Step is due already
	}
}

// Loop makes a Step after each change. Changed and Step are mandatory. The other
// zero values are no Watch, no limit and no periodic Step.
type Loop struct {
	// Task names the loop in the log, as in "keep kernel state network=10.5.0.0/16".
	Task string
	// Changed causes a Step. A change during a Step causes another one.
	Changed Signal
	// Watch runs beside the loop and calls changed after each change, until its
	// context ends. Its error ends Run.
	Watch func(ctx context.Context, changed func()) error
	// Step compares and repairs. Its error is logged at the rate of ratelog, and
	// Step is tried again with back-off. An error of Stop ends Run.
	Step func(context.Context) error
	// Interval is the least time between two Steps in the long run, and Burst
	// how many may follow each other without it.
	Interval time.Duration
	Burst    int
	// Every is the period of Steps without a change, on the ticks of pkg/clock.
	Every time.Duration
}

// stopped ends a Loop.
type stopped struct{ err error }

func (s *stopped) Error() string { return fmt.Sprint(s.err) }
func (s *stopped) Unwrap() error { return s.err }

// Stop makes a Step's result that ends Run; Run returns err, which may be nil.
func Stop(err error) error { return &stopped{err} }

// Run makes Steps on the caller's goroutine, and with it in the network
// namespace of the caller's thread. It returns nil after ctx ends. It returns
// the error of Watch, or that of Stop.
func (l Loop) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	if l.Watch != nil {
		g.Go(func() error { return l.Watch(ctx, l.Changed.Set) })
	}
	err := l.steps(ctx)
	cancel()
	return errors.Join(err, g.Wait())
}

func (l Loop) steps(ctx context.Context) error {
	limit := rate.NewLimiter(rate.Every(l.Interval), max(l.Burst, 1))
	pauses := backoff.New()
	var retry <-chan time.Time
	for {
		if !l.wait(ctx, retry) || limit.Wait(ctx) != nil {
			return nil
		}
		select {
		case <-l.Changed: // while the limit was waited for
		default:
		}
		err := l.Step(ctx)
		if end, ok := errors.AsType[*stopped](err); ok {
			return end.err
		}
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			retry = nil
			pauses.Reset()
			continue
		}
		ratelog.Errorf("%s reason=%q", l.Task, err)
		retry = time.After(pauses.NextBackOff())
	}
}

// wait returns true when a Step is due, and false when ctx ends.
func (l Loop) wait(ctx context.Context, retry <-chan time.Time) bool {
	var tick <-chan time.Time
	if l.Every > 0 {
		timer := time.NewTimer(clock.UntilTick(l.Every))
		defer timer.Stop()
		tick = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-l.Changed:
	case <-retry:
	case <-tick:
	}
	return true
}
