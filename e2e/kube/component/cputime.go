package component

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of times in /proc (USER_HZ).
const tick = 10 * time.Millisecond

// CPUTime returns the time that processors have worked for a component.
func (s *Set) CPUTime(name string) (total time.Duration) {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.running[name].Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}
	// The name, in parentheses, may have spaces. utime and stime are fields 14 and 15
	// (proc(5)).
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	for _, f := range fields[11:13] {
		ticks, err := strconv.Atoi(f)
		if err != nil {
			s.t.Fatal(err)
		}
		total += time.Duration(ticks) * tick
	}
	return total
}
