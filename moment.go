package main

import (
	"os"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

// moment is a point in time by this host's clocks, to be kept in a file.
type moment struct {
	// Boot is the kernel's random name of the boot (random(4)); "" if unknown.
	Boot string
	// SinceBoot is CLOCK_BOOTTIME. Within a boot it is the better clock: nobody
	// sets it, and it goes on in suspend. To another boot it says nothing.
	SinceBoot time.Duration
	// Wall is the only clock that goes on over a reboot.
	Wall time.Time
}

// bootIDFile is described in random(4).
const bootIDFile = "/proc/sys/kernel/random/boot_id"

func present() moment {
	id, err := os.ReadFile(bootIDFile)
	if err != nil {
		log.V(1).Infof("read boot id: %v", err)
	}
	// Round drops Go's monotonic reading, by which Sub would go.
	return moment{strings.TrimSpace(string(id)), subnet.SinceBoot(), time.Now().Round(0)}
}

// since is the time from before to m; not known over a reboot after which the
// wall clock is behind: it was set, or there is no clock that goes on when the
// power is off.
func (m moment) since(before moment) (passed time.Duration, known bool) {
	if m.Boot != "" && m.Boot == before.Boot {
		return m.SinceBoot - before.SinceBoot, true
	}
	passed = m.Wall.Sub(before.Wall)
	return passed, passed >= 0
}

// stepped reports whether somebody has set the wall clock since before, by more
// than a second, so that a moment kept for a reboot is to be taken anew.
func (m moment) stepped(before moment) bool {
	if m.Boot != before.Boot {
		return true
	}
	step := m.Wall.Sub(before.Wall) - (m.SinceBoot - before.SinceBoot)
	return step.Abs() > time.Second
}
