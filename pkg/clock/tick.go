// Package clock aligns periodic work to common ticks (timer coalescing), and
// measures time over suspend and reboot. On an idle host a wake-up costs more than
// the work: it wakes a thread, the Go runtime's monitor and a processor.
//
//	every 1 s   |   |   |   |   |
//	every 2 s   |       |       |
//	every 10 s  |                    …
package clock

import (
	"math/rand/v2"
	"time"
)

// ticks are the times that are a multiple of a period after an origin.
type ticks struct{ origin time.Time }

// spread bounds how far a process's origin is before its start. It exceeds the
// periods of work that loads the store or other hosts.
const spread = time.Minute

// process is the ticks of this process. Its origin is random, so that hosts that
// start together do not work in step.
var process = newTicks()

func newTicks() ticks { return ticks{time.Now().Add(-rand.N(spread))} }

// UntilTick returns the time until this process's next tick of a period. The
// result is greater than 0 and at most period. It is safe for concurrent use.
func UntilTick(period time.Duration) time.Duration { return process.until(period) }

func (t ticks) until(period time.Duration) time.Duration {
	since := time.Since(t.origin) % period
	if since < 0 { // a test's fake clock may be before the origin
		since += period
	}
	return period - since
}
