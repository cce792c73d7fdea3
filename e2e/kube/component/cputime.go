package component

import (
	"time"

	"github.com/prometheus/procfs"
)

// CPUTime returns the time that processors have worked for a component.
func (s *Set) CPUTime(name string) time.Duration {
	s.t.Helper()
	p, err := procfs.NewProc(s.running[name].Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	stat, err := p.Stat()
	if err != nil {
		s.t.Fatal(err)
	}
	return time.Duration(stat.CPUTime() * float64(time.Second))
}
