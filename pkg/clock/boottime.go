package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot returns CLOCK_BOOTTIME (clock_gettime(2)). It starts at 0 at each boot
// and cannot be set. Unlike CLOCK_MONOTONIC, it counts the time in suspend.
func SinceBoot() time.Duration {
	var t unix.Timespec
	// The call fails only where the kernel lacks the clock, before Linux 2.6.39.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(t.Nano())
}
