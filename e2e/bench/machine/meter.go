package machine

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/procfs"
)

// Meter measures the busy time of all processors since its start: that of every
// process, and that of the kernel in interrupts and softirqs, which is no process's.
// Its unit is a tick of 10 ms (USER_HZ, proc_stat(5)).
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

// Busy returns the busy time since the start, in seconds, and its share of all
// processor time, 0 to 1. Both exclude time that a hypervisor stole.
func (m *Meter) Busy() (seconds, share float64, err error) {
	now, err := m.read()
	if err != nil {
		return 0, 0, err
	}
	seconds = busy(now) - busy(m.start)
	idle := now.Idle + now.Iowait - m.start.Idle - m.start.Iowait
	if seconds+idle > 0 {
		// Rounding may make idle negative.
		share = min(1, seconds/(seconds+idle))
	}
	return seconds, share, nil
}

// busy omits Guest and GuestNice, which are parts of User and Nice.
func busy(s procfs.CPUStat) float64 { return s.User + s.Nice + s.System + s.IRQ + s.SoftIRQ }

const (
	// sampleTime is the length of each of AwaitQuiet's measurements.
	sampleTime = 250 * time.Millisecond
	// quietShare is the busy share below which the machine is quiet.
	quietShare = 0.04
)

// AwaitQuiet waits until the machine is quiet, at most for limit, so that earlier
// work does not disturb the next measurement. It returns the last busy share, 0 to
// 1.
func AwaitQuiet(ctx context.Context, limit time.Duration) (float64, error) {
	deadline := time.Now().Add(limit)
	for {
		m, err := StartMeter()
		if err != nil {
			return 0, err
		}
		timer := time.NewTimer(sampleTime)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return 0, ctx.Err()
		}
		_, share, err := m.Busy()
		if err != nil || share <= quietShare || !time.Now().Before(deadline) {
			return share, err
		}
	}
}
