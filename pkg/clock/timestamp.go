package clock

import (
	"os"
	"strings"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"
)

// Timestamp is a time by this host's clocks. It can be kept in a file.
type Timestamp struct {
	// Boot is the kernel's random identifier of the boot (random(4)); "" if unknown.
	Boot string
	// SinceBoot is CLOCK_BOOTTIME. Those of two boots are not comparable.
	SinceBoot time.Duration
	// Wall is the wall clock, the only clock that continues over a reboot.
	Wall time.Time
}

// Now returns the present Timestamp.
func Now() Timestamp {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		log.V(1).Infof("read boot id: %v", err)
	}
	// Round removes Go's monotonic reading, which Sub would use.
	return Timestamp{strings.TrimSpace(string(id)), SinceBoot(), time.Now().Round(0)}
}

// Since returns the time from before to t. known is false if the host rebooted
// and the wall clock went back.
func (t Timestamp) Since(before Timestamp) (passed time.Duration, known bool) {
	if t.Boot != "" && t.Boot == before.Boot { // promise: same-boot-uses-boot-clock
		return t.SinceBoot - before.SinceBoot, true
	}
	passed = t.Wall.Sub(before.Wall)
	return passed, passed >= 0 // promise: clock-behind-is-unknown
}

// Stepped reports whether the wall clock was set by more than a second since
// before, or the host has rebooted. A kept Timestamp is out of date then.
func (t Timestamp) Stepped(before Timestamp) bool {
	if t.Boot != before.Boot {
		return true
	}
	step := t.Wall.Sub(before.Wall) - (t.SinceBoot - before.SinceBoot)
	return step.Abs() > time.Second
}

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
