package subnet

import (
	"time"

	"golang.org/x/sys/unix"
)

// SinceBoot is CLOCK_BOOTTIME: unlike the wall clock it is never set, and unlike
// CLOCK_MONOTONIC it goes on while the machine is suspended (clock_gettime(2)).
// It begins anew at each boot.
func SinceBoot() time.Duration {
	var t unix.Timespec
	// It fails only for a clock that the kernel does not have, before Linux 2.6.39.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return time.Duration(time.Now().UnixNano())
	}
	return time.Duration(t.Nano())
}
