package daemon

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
	says   error
	checks int
}

func (s *slow) Check() error {
	time.Sleep(s.takes) // of a synctest bubble
	s.checks++
	return s.says
}

// However often somebody asks, the check itself takes a hundredth of the time;
// and much less for who asks all the time, unless there is a difference.
func TestChecksAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name        string
		says        error
		share       time.Duration
		during      time.Duration
		least, most int
	}{
		{"asked for", nil, checkShare, 10 * time.Second, 9, 11},
		{"asked for, something differs", errors.New("down"), checkShare, 10 * time.Second, 9, 11},
		{"all the time", nil, idleShare, 1000 * time.Second, 9, 11},
		{"all the time, something differs", errors.New("down"), idleShare, 10 * time.Second, 9, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c checker
				n := &slow{takes: 10 * time.Millisecond, says: tt.says}
				for began := time.Now(); time.Since(began) < tt.during; time.Sleep(10 * time.Millisecond) {
					if err := c.ask(n, tt.share); !errors.Is(err, tt.says) {
						t.Fatalf("ask = %v", err)
					}
				}
				if n.checks < tt.least || n.checks > tt.most {
					t.Errorf("%d checks of 10 ms in %v, want %d to %d", n.checks, tt.during, tt.least, tt.most)
				}
				other := &slow{takes: time.Millisecond}
				_ = c.ask(other, tt.share)
				if other.checks != 1 {
					t.Error("another network is given the answer of the first")
				}
			})
		})
	}
}
