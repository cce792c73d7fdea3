package main

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/procfs"
)

// memory describes the process's memory: resident now and at its peak, and the
// anonymous part (no pages of the program's file).
func memory(pid int) string {
	status, err := statusOf(pid)
	if err != nil {
		return err.Error()
	}
	const mb = 1 << 20
	return fmt.Sprintf("%.1f MB resident (%.1f MB without the program's file), %.1f MB at most",
		float64(status.VmRSS)/mb, float64(status.RssAnon)/mb, float64(status.VmHWM)/mb)
}

// processorOf returns the processor time that a process's threads have used.
func (s *scale) processorOf(pid int) time.Duration {
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		s.Fatalf("read threads of process %d: %v", pid, err)
	}
	var ran time.Duration
	for _, t := range threads {
		if stat, err := t.Schedstat(); err == nil { // otherwise the thread has ended
			ran += time.Duration(stat.RunningNanoseconds)
		}
	}
	return ran
}

// wakeups returns how often threads of the process have gone to sleep.
func (s *scale) wakeups(pid int) uint64 {
	threads, err := procfs.AllThreads(pid)
	if err != nil {
		s.Fatalf("read threads of process %d: %v", pid, err)
	}
	var n uint64
	for _, t := range threads {
		if status, err := t.NewStatus(); err == nil { // otherwise the thread has ended
			n += status.VoluntaryCtxtSwitches
		}
	}
	return n
}

func statusOf(pid int) (procfs.ProcStatus, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return procfs.ProcStatus{}, err
	}
	return p.NewStatus()
}

// costs is the processor time used so far by etcd and by this program, which
// contains the simulated hosts.
type costs struct{ etcd, hosts time.Duration }

func (s *scale) costs() costs {
	return costs{s.processorOf(s.etcd.Process.Pid), s.processorOf(os.Getpid())}
}

func (c costs) since(before costs) string {
	return fmt.Sprintf("of etcd %v, of the hosts %v", c.etcd-before.etcd, c.hosts-before.hosts)
}
