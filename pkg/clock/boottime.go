package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot returns CLOCK_BOOTTIME (clock_gettime(2)). Nobody sets this clock.
// It counts the time in suspend, unlike CLOCK_MONOTONIC. It starts at 0 at each boot.
func SinceBoot() time.Duration {
	var t unix.Timespec
	// The call fails only where the kernel lacks the clock, before Linux 2.6.39.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(t.Nano())
}
