package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
)

// slow is a network whose check takes a while.
type slow struct {
	backend.Network
	takes  time.Duration
	checks int
}

func (s *slow) Check() error {
	time.Sleep(s.takes) // of a synctest bubble
	s.checks++
	return errors.New("down")
}

// However often somebody asks, the check itself takes a hundredth of the time.
func TestChecksAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c checker
		n := &slow{takes: 10 * time.Millisecond}
		for began := time.Now(); time.Since(began) < 10*time.Second; time.Sleep(time.Millisecond) {
			if err := c.ask(n); err == nil || err.Error() != "down" {
				t.Fatalf("ask = %v", err)
			}
		}
		if n.checks < 9 || n.checks > 11 {
			t.Errorf("%d checks of 10 ms in 10 s, want 10", n.checks)
		}
		other := &slow{takes: time.Millisecond}
		_ = c.ask(other)
		if other.checks != 1 {
			t.Error("another network is given the answer of the first")
		}
	})
}
