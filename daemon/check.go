package daemon

import (
	"strings"
	"sync"
	"time"

	"github.com/coreos/flannel/backend"
)

// What comparing the kernel with what it should be may cost: one part in this
// many of the time, however often somebody asks. idleShare is for those who ask
// all the time, while all is well; who sees a difference wants to see it go.
const (
	checkShare = 100
	idleShare  = 10_000
)

// checker remembers what a Network's Check has said for as long as that bound
// asks: a tenth of a second where a check takes a millisecond.
type checker struct {
	mu    sync.Mutex // guards what follows; held over Check, so that many who ask at once are one
	of    backend.Checker
	ended time.Time
	took  time.Duration
	said  error
}

// ask says what differs now, or did when a check that the share allows was made
// last; nil: nothing.
func (c *checker) ask(n backend.Checker, share time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.said != nil {
		share = min(share, checkShare)
	}
	began := time.Now()
	if n == c.of && began.Before(c.ended.Add(c.took*share)) {
		return c.said
	}
	c.of, c.said = n, n.Check()
	c.ended = time.Now()
	c.took = c.ended.Sub(began)
	return c.said
}

// differences are in words, one each.
func (d *daemon) differences(n backend.Network, share time.Duration) []string {
	err := d.checks.ask(n, share)
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n") // as errors.Join has them
}
