package machine

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Meter measures the work of all processors between two moments: that of every
// process, and that of the kernel in interrupts and softirqs, which no process
// is charged for. It counts in ticks of 10 ms (USER_HZ, see proc_stat(5)).
type Meter struct {
	fs    procfs.FS
	start procfs.CPUStat
}

// StartMeter reads the counters.
func StartMeter() (*Meter, error) {
	fs, err := procfs.NewFS(procfs.DefaultMountPoint)
	if err != nil {
		return nil, fmt.Errorf("meter processors: %w", err)
	}
	m := &Meter{fs: fs}
	if m.start, err = m.read(); err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Meter) read() (procfs.CPUStat, error) {
	s, err := m.fs.Stat()
	if err != nil {
		return procfs.CPUStat{}, fmt.Errorf("meter processors: %w", err)
	}
	return s.CPUTotal, nil
}

// Busy is the processor time since the start, in seconds, and the share of all
// that there was, 0 to 1. What a hypervisor stole is in neither.
func (m *Meter) Busy() (seconds, share float64, err error) {
	now, err := m.read()
	if err != nil {
		return 0, 0, err
	}
	seconds = busy(now) - busy(m.start)
	idle := now.Idle + now.Iowait - m.start.Idle - m.start.Iowait
	if seconds+idle > 0 {
		// Rounding may make idle a little less than nothing.
		share = min(1, seconds/(seconds+idle))
	}
	return seconds, share, nil
}

// busy leaves out Guest and GuestNice: they are in User and Nice already.
func busy(s procfs.CPUStat) float64 { return s.User + s.Nice + s.System + s.IRQ + s.SoftIRQ }

const (
	// lookFor is how long AwaitQuiet looks before it judges.
	lookFor = 250 * time.Millisecond
	// quiet is the share of the machine that others may use.
	quiet = 0.04
)

// AwaitQuiet returns when the machine does next to nothing, so that what went
// before does not weigh on what is measured next, and at the latest after
// limit. It returns the last share that it saw, 0 to 1.
func AwaitQuiet(ctx context.Context, limit time.Duration) (float64, error) {
	deadline := time.Now().Add(limit)
	for {
		m, err := StartMeter()
		if err != nil {
			return 0, err
		}
		look := time.NewTimer(lookFor)
		select {
		case <-look.C:
		case <-ctx.Done():
			look.Stop()
			return 0, ctx.Err()
		}
		_, share, err := m.Busy()
		if err != nil || share <= quiet || !time.Now().Before(deadline) {
			return share, err
		}
	}
}
