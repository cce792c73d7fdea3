// Package clock aligns periodic work to common ticks, and measures time that
// must hold over suspend and reboot. On an idle host a wake-up costs more than
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

// ticks are the moments that are multiples of a period after an origin.
type ticks struct{ origin time.Time }

// spread bounds the difference between the origins of two hosts. It exceeds the
// periods of work that loads the store or other hosts.
const spread = time.Minute

// process holds this process's ticks. The origin is random, so that hosts that
// start together do not keep in step.
var process = newTicks()

func newTicks() ticks { return ticks{time.Now().Add(-rand.N(spread))} }

// UntilTick returns the time until this process's next tick of that period. The
// result is greater than 0 and at most every.
func UntilTick(every time.Duration) time.Duration { return process.until(every) }

func (t ticks) until(every time.Duration) time.Duration {
	since := time.Since(t.origin) % every
	if since < 0 { // the fake clock of a test may be behind the origin
		since += every
	}
	return every - since
}
