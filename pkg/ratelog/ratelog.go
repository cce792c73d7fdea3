// Package ratelog logs faults that may repeat: the first one at once, those that
// follow within a minute as a count.
//
//	W… keep.go:66] repair nftables table=flannel-10.5.0.0-16 reason="changed by another program"
//	W… keep.go:66] repair nftables table=flannel-10.5.0.0-16 reason="changed by another program": repeated 37 times in 60 s
//
// It is for the places where a loop, a peer or another program decides how
// often something fails. What happens once in a run goes to glog itself.
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
	// most is how many different texts of one kind are logged in a window: a
	// thousand peers with the same fault are ten lines and a count.
	most = 10
)

// Warningf and Errorf log a fault; faults of one format are of one kind. They
// are safe for concurrent use.
func Warningf(format string, args ...any) { process.say(log.WarningDepth, format, args) }

// Errorf is like Warningf.
func Errorf(format string, args ...any) { process.say(log.ErrorDepth, format, args) }

// process is what this process has said; the log is the process's, too.
var process limiter

// limiter remembers what was said. The zero limiter has said nothing.
type limiter struct {
	mu    sync.Mutex
	kinds map[string]*kind // by format
}

// kind is what one format has said since began.
type kind struct {
	began time.Time
	texts map[string]bool
	// held counts what was not logged, last is the latest of that.
	held int
	last string
}

// depth is how many functions are between who is named in the log and glog.
const depth = 2

func (l *limiter) say(to func(int, ...any), format string, args []any) {
	text := fmt.Sprintf(format, args...)
	if l.admit(format, text, func(count string) { to(0, count) }) {
		to(depth, text)
	}
}

// admit says whether text is to be logged now. sum logs the count of what was
// not, when the window has passed.
func (l *limiter) admit(format, text string, sum func(string)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[format]
	if k == nil {
		if l.kinds == nil {
			l.kinds = make(map[string]*kind)
		}
		k = &kind{began: time.Now(), texts: make(map[string]bool)}
		l.kinds[format] = k
		time.AfterFunc(window, func() { l.end(format, sum) })
	}
	if !k.texts[text] && len(k.texts) < most {
		k.texts[text] = true
		return true
	}
	k.held++
	k.last = text
	return false
}

// end forgets a kind, and tells what it has held back.
func (l *limiter) end(format string, sum func(string)) {
	l.mu.Lock()
	k := l.kinds[format]
	delete(l.kinds, format)
	l.mu.Unlock()
	if k.held > 0 {
		sum(fmt.Sprintf("%s: repeated %d times in %.0f s", k.last, k.held, time.Since(k.began).Seconds()))
	}
}
