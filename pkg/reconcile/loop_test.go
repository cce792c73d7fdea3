package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	log "github.com/golang/glog"
)

// rig runs a Loop in a synctest bubble and notes the time of each Step.
type rig struct {
	loop   Loop
	began  time.Time
	cancel context.CancelFunc
	ended  chan error

	mu    sync.Mutex // guards steps
	steps []time.Duration
}

// start runs l. A nil step succeeds.
func start(t *testing.T, l Loop, step func(n int) error) *rig {
	r := &rig{loop: l, began: time.Now(), ended: make(chan error, 1)}
	r.loop.Task = t.Name()
	r.loop.Changed = NewSignal()
	r.loop.Step = func(context.Context) error {
		r.mu.Lock()
		r.steps = append(r.steps, time.Since(r.began))
		n := len(r.steps)
		r.mu.Unlock()
		if step == nil {
			return nil
		}
		return step(n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() { r.ended <- r.loop.Run(ctx) }()
	synctest.Wait()
	return r
}

// after lets time pass and returns the number of Steps so far.
func (r *rig) after(d time.Duration) int {
	time.Sleep(d) // of the bubble
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.steps)
}

// end ends the context and checks that Run returns nil.
func (r *rig) end(t *testing.T) {
	t.Helper()
	r.cancel()
	synctest.Wait()
	select {
	case err := <-r.ended:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	default:
		t.Error("Run goes on after its context ended")
	}
	time.Sleep(2 * time.Minute) // the log's window, which all tests share
}

func TestChangeCausesStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{}, nil)
		if n := r.after(time.Hour); n != 0 {
			t.Errorf("%d steps without a change", n)
		}
		r.loop.Changed.Set()
		if n := r.after(0); n != 1 {
			t.Errorf("%d steps at once after a change, want 1", n)
		}
		r.end(t)
	})
}

// Changes before Run count.
func TestChangeBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSignal()
		s.Set()
		steps := 0
		l := Loop{Changed: s, Step: func(context.Context) error { steps++; return Stop(nil) }}
		if err := l.Run(t.Context()); err != nil || steps != 1 {
			t.Errorf("%d steps, %v", steps, err)
		}
	})
}

// The first change of a burst causes a Step at once, and all others together one.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{Interval: time.Second, Burst: 1}, nil)
		r.loop.Changed.Set()
		if n := r.after(0); n != 1 {
			t.Errorf("%d steps after the first change, want 1", n)
		}
		for range 900 {
			r.loop.Changed.Set()
			r.after(time.Millisecond)
		}
		if n := r.after(time.Hour); n != 2 {
			t.Errorf("%d steps after a burst of changes, want 2", n)
		}
		r.end(t)
	})
}

// Burst Steps may follow each other; those behind come at the interval.
func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{Interval: 200 * time.Millisecond, Burst: 3}, nil)
		for range 10_000 { // ten seconds
			r.loop.Changed.Set()
			r.after(time.Millisecond)
		}
		if n := r.after(0); n < 51 || n > 54 {
			t.Errorf("%d steps in 10 s of changes, want 3 and 5 a second", n)
		}
		if r.steps[2] > 3*time.Millisecond || r.steps[3]-r.steps[0] < 200*time.Millisecond {
			t.Errorf("steps at %v, want three at once and the fourth after 200 ms", r.steps[:4])
		}
		r.end(t)
	})
}

func TestChangeDuringStepIsNotLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocked := make(chan struct{})
		r := start(t, Loop{}, func(n int) error {
			if n == 1 {
				<-blocked
			}
			return nil
		})
		r.loop.Changed.Set()
		r.after(time.Second)
		r.loop.Changed.Set()
		r.loop.Changed.Set()
		if n := r.after(time.Second); n != 1 {
			t.Errorf("%d steps at a time", n)
		}
		close(blocked)
		if n := r.after(time.Hour); n != 2 {
			t.Errorf("%d steps, want one more for the changes during the first", n)
		}
		r.end(t)
	})
}

// Pauses grow to the cap of 1.5 s ± 50 %, have jitter, and end with success.
func TestBackOff(t *testing.T) {
	const failures = 200
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{}, func(n int) error {
			if n <= failures {
				return errors.New("not yet")
			}
			return nil
		})
		r.loop.Changed.Set()
		if n := r.after(time.Hour); n != failures+1 {
			t.Fatalf("%d steps, want %d failures and a success", n, failures)
		}
		pauses := make(map[time.Duration]bool)
		for i := range failures {
			pause := r.steps[i+1] - r.steps[i]
			pauses[pause] = true
			if pause > 2250*time.Millisecond {
				t.Errorf("pause %d is %v, more than the cap", i, pause)
			}
			if i > 10 && pause < 750*time.Millisecond {
				t.Errorf("pause %d is %v, less than the cap's half", i, pause)
			}
		}
		if first := r.steps[1] - r.steps[0]; first > 150*time.Millisecond {
			t.Errorf("the first pause is %v", first)
		}
		if len(pauses) < failures/2 {
			t.Errorf("%d different pauses in %d: no jitter", len(pauses), failures)
		}
		r.end(t)
	})
}

// The pauses after a success start short again, and a change cuts a pause.
func TestBackOffIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{}, func(n int) error {
			if n == 20 {
				return nil
			}
			return errors.New("not yet")
		})
		r.loop.Changed.Set()
		if n := r.after(time.Hour); n != 20 {
			t.Fatalf("%d steps, want 20", n)
		}
		r.loop.Changed.Set()
		if n := r.after(150 * time.Millisecond); n < 22 {
			t.Errorf("%d steps, want a retry within 150 ms of a failure after a success", n)
		}
		n := r.after(time.Minute)
		r.loop.Changed.Set()
		if m := r.after(0); m != n+1 {
			t.Errorf("%d steps at once after a change amid a pause, want 1", m-n)
		}
		r.end(t)
	})
}

func TestPeriodicStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{Every: time.Minute}, nil)
		if n := r.after(time.Hour); n != 60 {
			t.Errorf("%d steps in an hour of minutes", n)
		}
		r.end(t)
	})
}

// A lasting failure is logged at once, and then as a count each minute.
func TestFailureIsLoggedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{}, func(n int) error { return errors.New("failure") })
		logged := func(d time.Duration, want int64) {
			t.Helper()
			before := log.Stats.Error.Lines()
			if r.after(d); log.Stats.Error.Lines()-before != want {
				t.Errorf("%d lines in the log within %v, want %d", log.Stats.Error.Lines()-before, d, want)
			}
		}
		r.loop.Changed.Set()
		logged(0, 1)
		logged(59*time.Second, 0)
		logged(5*time.Second, 2) // the count, and the first of the next minute
		logged(50*time.Second, 0)
		r.end(t)
	})
}

func TestContextEnds(t *testing.T) {
	for name, l := range map[string]Loop{"idle": {}, "periodic": {Every: time.Minute}, "limited": {Interval: time.Hour}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, l, func(int) error { return errors.New("not yet") })
				r.loop.Changed.Set()
				r.after(time.Minute)
				r.loop.Changed.Set()
				r.end(t)
			})
		})
	}
}

func TestStop(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{nil, broken} {
		synctest.Test(t, func(t *testing.T) {
			watched := make(chan struct{})
			l := Loop{Watch: func(ctx context.Context, changed func()) error {
				defer close(watched)
				changed()
				<-ctx.Done()
				return nil
			}}
			r := start(t, l, func(int) error { return fmt.Errorf("wrapped: %w", Stop(want)) })
			<-watched
			if err := <-r.ended; !errors.Is(err, want) || len(r.steps) != 1 {
				t.Errorf("Run: %v after %d steps, want %v after 1", err, len(r.steps), want)
			}
		})
	}
}

func TestWatchFails(t *testing.T) {
	broken := errors.New("broken")
	synctest.Test(t, func(t *testing.T) {
		r := start(t, Loop{Watch: func(context.Context, func()) error { return broken }}, nil)
		if err := <-r.ended; !errors.Is(err, broken) {
			t.Errorf("Run: %v, want the error of Watch", err)
		}
	})
}
