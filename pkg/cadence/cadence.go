// Package cadence has all that a process does every so often happen at the same
// moments, so that it wakes up once for all of it: on an idle host it is the
// waking that costs, of a thread, of the Go runtime's monitor and of a processor
// from its sleep, and not the work.
//
//	every 1 s   |   |   |   |   |
//	every 2 s   |       |       |
//	every 10 s  |                    …
//
// The origin is the process's own, at random, so that hosts that have started at
// the same moment do not keep in step.
package cadence

import (
	"math/rand/v2"
	"time"
)

// Cadence is the moments that are multiples of a period after an origin.
type Cadence struct{ origin time.Time }

// spread is what origins differ by; longer than the periods that hosts would
// load each other or the store by, if they kept in step.
const spread = time.Minute

// New makes a Cadence with an origin of its own.
func New() Cadence { return Cadence{time.Now().Add(-rand.N(spread))} }

var process = New()

// Next is the time until the next moment of the process's cadence.
func Next(every time.Duration) time.Duration { return process.Next(every) }

// Next is the time until the next moment that is a multiple of every, more than
// 0 and at most every.
func (c Cadence) Next(every time.Duration) time.Duration {
	since := time.Since(c.origin) % every
	if since < 0 { // a clock of a test's own may be behind
		since += every
	}
	return every - since
}
