package probe

import "time"

const (
	// minSize is the size that every IPv4 path carries whole (RFC 791).
	minSize = 68
	// tries is the number of lost probes after which a size is too large. A probe
	// may be lost for other reasons.
	tries = 2
	// precision is the error at which the search ends, in bytes.
	precision = 4
)

// search finds the largest packet that passes: first the full size, which nearly
// always does, then by bisection.
type search struct {
	full int // the device's MTU
	// low passed, high did not. high is 0 until the full size was lost.
	low, high int
	failed    int // lost probes of the current size
	waiting   bool
	settled   time.Time // end of the search; zero: it goes on
}

// next returns the size to try now; 0: none is due.
func (s *search) next(now time.Time) int {
	if s.waiting || s.full < minSize {
		return 0
	}
	if !s.settled.IsZero() {
		if now.Sub(s.settled) < largeEvery {
			return 0
		}
		s.low, s.high, s.settled = 0, 0, time.Time{}
	}
	if s.high == 0 {
		return s.full
	}
	return max(s.low, minSize) + (s.high-max(s.low, minSize))/2
}

// passed records that a probe of size was answered. It returns the result if the
// search has ended, else 0.
func (s *search) passed(size int, now time.Time) int {
	s.waiting, s.failed = false, 0
	s.low = max(s.low, size)
	return s.end(now)
}

// lost is passed for a probe without an answer.
func (s *search) lost(size int, now time.Time) int {
	s.waiting = false
	if s.failed++; s.failed < tries {
		return 0
	}
	s.failed, s.high = 0, size // promise: search-ends-below-limit
	return s.end(now)
}

func (s *search) end(now time.Time) int {
	if s.low < s.full && (s.high == 0 || s.high-max(s.low, minSize) > precision) {
		return 0
	}
	s.settled = now
	return s.low
}
