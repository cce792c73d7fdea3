package main

import (
	"strings"
	"sync"
	"time"

	"github.com/coreos/flannel/backend"
)

// checkShare bounds what comparing the kernel with what it should be may cost:
// one part in this many of the time, however often somebody asks.
const checkShare = 100

// checker remembers what a Network's Check has said for as long as that bound
// asks: a tenth of a second where a check takes a millisecond.
type checker struct {
	mu   sync.Mutex // guards what follows; held over Check, so that many who ask at once are one
	of   backend.Checker
	next time.Time
	said error
}

// ask says what differs now; nil: nothing.
func (c *checker) ask(n backend.Checker) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	began := time.Now()
	if n == c.of && began.Before(c.next) {
		return c.said
	}
	c.of, c.said = n, n.Check()
	ended := time.Now()
	c.next = ended.Add(ended.Sub(began) * checkShare)
	return c.said
}

// differences are in words, one each.
func (d *daemon) differences(n backend.Network) []string {
	err := d.checks.ask(n)
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n") // as errors.Join has them
}
