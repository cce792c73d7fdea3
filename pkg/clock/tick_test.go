package clock

import (
	"testing"
	"testing/synctest"
	"time"
)

// Waits that begin at any time between two ticks end at the same tick.
func TestWaitsEndTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newTicks()
		ticked := make(map[time.Time]int)
		for wait := range 10 {
			time.Sleep(time.Duration(wait) * 99 * time.Millisecond / 10) // of the bubble
			for _, every := range []time.Duration{time.Second, 2 * time.Second, 10 * time.Second} {
				next := c.until(every)
				if next <= 0 || next > every {
					t.Errorf("next of every %v in %v", every, next)
				}
				ticked[time.Now().Add(next)]++
			}
		}
		if len(ticked) > 5 { // two seconds, and what follows the longer periods
			t.Errorf("%d ticks, want few: %v", len(ticked), ticked)
		}
		time.Sleep(c.until(2 * time.Second))
		if one, two := c.until(time.Second), c.until(2*time.Second); one != time.Second || two != 2*time.Second {
			t.Errorf("at a tick the next ones are in %v and %v", one, two)
		}
	})
}

func TestProcessesAreNotInStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		starts := make(map[time.Duration]bool)
		for range 8 {
			starts[newTicks().until(2*time.Second)] = true
		}
		if len(starts) < 2 {
			t.Errorf("eight processes all wake after %v, want different times", starts)
		}
	})
}

// A synctest bubble's clock begins in 2000, long before the process's origin.
func TestOriginInTheFuture(t *testing.T) {
	c := ticks{time.Now().Add(time.Hour + time.Millisecond)}
	if next := c.until(time.Second); next <= 0 || next > time.Second {
		t.Errorf("the next second in %v", next)
	}
}
