package clock

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"
)

// Timestamp is a time by this host's clocks. It can be kept in a file.
type Timestamp struct {
	// Boot is the kernel's random identifier of the boot (random(4)); "" if unknown.
	Boot string
	// SinceBoot is CLOCK_BOOTTIME in this process's time namespace, which adds
	// Offset to the host's (time_namespaces(7)). Those of two boots are not
	// comparable.
	SinceBoot, Offset time.Duration
	// Wall is the wall clock, the only clock that continues over a reboot.
	Wall time.Time
	// Unset: nothing has set the wall clock since the boot. A host without a
	// battery clock begins at the time that it last saved, or in 1970.
	Unset bool
}

const (
	// bootIDFile has the boot's identifier (random(4)).
	bootIDFile = "/proc/sys/kernel/random/boot_id"
	// offsetsFile has the clock offsets of the time namespace of this process's
	// children; timeNamespace and childrensTime name its own and theirs. A kernel
	// without time namespaces has none of them.
	offsetsFile   = "/proc/self/timens_offsets"
	timeNamespace = "/proc/self/ns/time"
	childrensTime = "/proc/self/ns/time_for_children"
	// fromRTC match files with "1" if the kernel set the wall clock by that battery
	// clock at boot (Documentation/ABI/testing/sysfs-class-rtc).
	fromRTC = "/sys/class/rtc/*/hctosys"
)

// Now returns the present Timestamp.
func Now() Timestamp {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		log.V(1).Infof("read boot id: %v", err)
	}
	// Round removes Go's monotonic reading, which Sub would use.
	t := Timestamp{Boot: strings.TrimSpace(string(id)), SinceBoot: SinceBoot(), Wall: time.Now().Round(0), Unset: unset()}
	if t.Offset, err = bootOffset(); err != nil {
		log.V(1).Infof("read time namespace: %v", err)
		t.Boot = "" // not comparable
	}
	return t
}

// bootOffset returns what this time namespace adds to CLOCK_BOOTTIME.
func bootOffset() (time.Duration, error) {
	text, err := os.ReadFile(offsetsFile)
	if os.IsNotExist(err) {
		return 0, nil
	}
	own, ownErr := os.Readlink(timeNamespace)
	children, childrenErr := os.Readlink(childrensTime)
	switch {
	case err != nil:
		return 0, err
	case ownErr != nil:
		return 0, ownErr
	case childrenErr != nil:
		return 0, childrenErr
	case own != children:
		return 0, fmt.Errorf("children have %s, this process %s", children, own)
	}
	for line := range strings.Lines(string(text)) {
		var name string
		var seconds, nanoseconds int64
		if n, _ := fmt.Sscan(line, &name, &seconds, &nanoseconds); n == 3 && name == "boottime" {
			return time.Duration(seconds)*time.Second + time.Duration(nanoseconds), nil
		}
	}
	return 0, fmt.Errorf("%s has no boottime: %q", offsetsFile, text)
}

// unset reports whether neither a battery clock nor a time service has set the wall
// clock since the boot, as far as the kernel knows.
func unset() bool {
	files, _ := filepath.Glob(fromRTC) // its only error is a bad pattern
	for _, f := range files {
		if text, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(text)) == "1" {
			return false
		}
	}
	state, err := unix.Adjtimex(&unix.Timex{}) // without modes it only reads (adjtimex(2))
	return err == nil && state == unix.TIME_ERROR
}

// Since returns the time from before to t. known is false if the host rebooted, and
// the wall clock went back or was not set.
func (t Timestamp) Since(before Timestamp) (passed time.Duration, known bool) {
	if t.Boot != "" && t.Boot == before.Boot { // promise: same-boot-uses-boot-clock
		return t.onHost() - before.onHost(), true
	}
	passed = t.Wall.Sub(before.Wall)
	return passed, passed >= 0 && !t.Unset && !before.Unset // promise: clock-behind-is-unknown
}

// onHost returns CLOCK_BOOTTIME in the host's own time namespace.
func (t Timestamp) onHost() time.Duration { return t.SinceBoot - t.Offset }

// Stepped reports whether the wall clock was set by more than a second since
// before, or for the first time, or the host has rebooted. A kept Timestamp is out of date then.
func (t Timestamp) Stepped(before Timestamp) bool {
	if t.Boot != before.Boot || t.Unset != before.Unset {
		return true
	}
	step := t.Wall.Sub(before.Wall) - (t.onHost() - before.onHost())
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
