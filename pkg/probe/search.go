package probe

import "time"

const (
	// leastSize is what every way of IPv4 carries whole (RFC 791).
	leastSize = 68
	// tries is how often a size is tried before it counts as too large: a probe
	// may be lost for other reasons.
	tries = 2
	// precision is where the search ends, in bytes.
	precision = 4
)

// search finds the largest packet that comes through: first the full size,
// which nearly always does; then by halves.
type search struct {
	full int // the device's MTU: nothing larger leaves
	// low came through, high did not; high is 0 while the full size was not
	// refused.
	low, high int
	failed    int // tries of the present size
	waiting   bool
	settled   time.Time // zero: the search goes on
}

// next is the size to try now; 0: none is due.
func (s *search) next(now time.Time) int {
	if s.waiting || s.full < leastSize {
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
	return max(s.low, leastSize) + (s.high-max(s.low, leastSize))/2
}

// passed and stuck take the outcome of a probe of size; they return the result
// once the search has ended, else 0.
func (s *search) passed(size int, now time.Time) int {
	s.waiting, s.failed = false, 0
	s.low = max(s.low, size)
	return s.end(now)
}

func (s *search) stuck(size int, now time.Time) int {
	s.waiting = false
	if s.failed++; s.failed < tries {
		return 0
	}
	s.failed, s.high = 0, size
	return s.end(now)
}

func (s *search) end(now time.Time) int {
	if s.low < s.full && (s.high == 0 || s.high-max(s.low, leastSize) > precision) {
		return 0
	}
	s.settled = now
	return s.low
}
