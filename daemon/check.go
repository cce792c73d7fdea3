package daemon

import (
	"strings"
	"sync"
	"time"

	"github.com/coreos/flannel/backend"
)

// A check may use at most 1/pauseFactor of the time. A caller that checks all the
// time, while the network is as it should be, uses at most 1/idlePauseFactor.
const (
	pauseFactor     = 100
	idlePauseFactor = 10_000
)

// checkCache bounds the time that a Network's Check takes, however often its
// result is read: at 1/100, a check that takes a millisecond runs ten times a second.
type checkCache struct {
	// mu guards what follows. It is held over Check: concurrent callers share one.
	mu      sync.Mutex
	checker backend.Checker
	ended   time.Time
	took    time.Duration
	err     error
}

// check returns the result of c.Check: of a call now, or of the last one if the
// pause after it is not over: factor times as long as the call.
func (cc *checkCache) check(c backend.Checker, factor int) error {
	cc.mu.Lock()
	defer cc.mu.Unlock()
	if cc.err != nil { // its end is of interest to all callers
		factor = min(factor, pauseFactor)
	}
	began := time.Now()
	if c == cc.checker && began.Before(cc.ended.Add(cc.took*time.Duration(factor))) {
		return cc.err
	}
	cc.checker, cc.err = c, c.Check()
	cc.ended = time.Now()
	cc.took = cc.ended.Sub(began)
	return cc.err
}

// differences returns the lines of check's error.
func (cc *checkCache) differences(c backend.Checker, factor int) []string {
	return lines(cc.check(c, factor))
}

// lines returns the lines of an error; none for nil.
func lines(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n") // as errors.Join joins them
}
