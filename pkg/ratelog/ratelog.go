// Package ratelog limits the rate of log lines about faults that repeat. It logs
// the first one at once, and those that follow within a minute as a count.
//
//	W… keep.go:66] repair nftables table=flannel-10.5.0.0-16 reason="changed by another program"
//	W… keep.go:66] repair nftables table=flannel-10.5.0.0-16 reason="changed by another program": repeated 37 times in 60 s
//
// It is for faults whose rate depends on a loop, a peer or another program. A fault
// that can occur once in a run goes to glog itself.
package ratelog

import (
	"fmt"
	"sync"
	"time"

	log "github.com/golang/glog"
)

const (
	// window is how long a text is not logged again.
	window = time.Minute
	// maxTexts is how many different texts of one format are logged in a window: a
	// thousand peers with the same fault are ten lines and a count.
	maxTexts = 10
)

// Warningf logs a fault at level warning. Faults with the same format share a
// limit. It is safe for concurrent use.
func Warningf(format string, args ...any) { process.logf(log.WarningDepth, format, args) }

// Errorf is like Warningf, at level error.
func Errorf(format string, args ...any) { process.logf(log.ErrorDepth, format, args) }

// process is the limiter of this process, as glog's log is the process's.
var process limiter

// limiter counts log lines by format. The zero limiter is ready for use.
type limiter struct {
	mu      sync.Mutex
	windows map[string]*counts // by format; guarded by mu
}

// counts are those of one format in one window.
type counts struct {
	logged     map[string]bool // texts
	suppressed int
	last       string // the latest text that was suppressed
}

// callDepth is the number of functions between glog and the one whose line the
// log names.
const callDepth = 2

// logf logs to one of glog's functions that take a depth.
func (l *limiter) logf(to func(depth int, args ...any), format string, args []any) {
	text := fmt.Sprintf(format, args...)
	if l.admit(format, text, func(count string) { to(0, count) }) {
		to(callDepth, text)
	}
}

// admit reports whether text may be logged now. When the window ends, logCount is
// called with the count of the others, if there are any.
func (l *limiter) admit(format, text string, logCount func(string)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.windows[format]
	if c == nil {
		if l.windows == nil {
			l.windows = make(map[string]*counts)
		}
		c = &counts{logged: make(map[string]bool)}
		l.windows[format] = c
		time.AfterFunc(window, func() { l.endWindow(format, logCount) })
	}
	if !c.logged[text] && len(c.logged) < maxTexts {
		c.logged[text] = true
		return true
	}
	c.suppressed++
	c.last = text
	return false
}

// endWindow removes a format's counts, and logs how many texts were suppressed.
func (l *limiter) endWindow(format string, logCount func(string)) {
	l.mu.Lock()
	c := l.windows[format]
	delete(l.windows, format)
	l.mu.Unlock()
	if c.suppressed > 0 {
		logCount(fmt.Sprintf("%s: repeated %d times in %.0f s", c.last, c.suppressed, window.Seconds()))
	}
}
