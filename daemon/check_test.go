package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
)

// slowNetwork is a network whose check takes time.
type slowNetwork struct {
	backend.Network
	takes  time.Duration
	differ error
	checks int
}

func (s *slowNetwork) Check() error {
	time.Sleep(s.takes) // of a synctest bubble
	s.checks++
	return s.differ
}

// Checks take at most a hundredth of the time, however many calls there are.
// Periodic callers get much less, unless there is a difference.
func TestChecksAreBounded(t *testing.T) {
	for _, tt := range []struct {
		name        string
		differ      error
		factor      int
		during      time.Duration
		least, most int
	}{
		{"on demand", nil, pauseFactor, 10 * time.Second, 9, 11},
		{"on demand, something differs", errors.New("down"), pauseFactor, 10 * time.Second, 9, 11},
		{"periodic", nil, idlePauseFactor, 1000 * time.Second, 9, 11},
		{"periodic, something differs", errors.New("down"), idlePauseFactor, 10 * time.Second, 9, 11},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var c checkCache
				n := &slowNetwork{takes: 10 * time.Millisecond, differ: tt.differ}
				for began := time.Now(); time.Since(began) < tt.during; time.Sleep(10 * time.Millisecond) {
					if err := c.check(n, tt.factor); !errors.Is(err, tt.differ) {
						t.Fatalf("check = %v", err)
					}
				}
				if n.checks < tt.least || n.checks > tt.most {
					t.Errorf("%d checks of 10 ms in %v, want %d to %d", n.checks, tt.during, tt.least, tt.most)
				}
				other := &slowNetwork{takes: time.Millisecond}
				_ = c.check(other, tt.factor)
				if other.checks != 1 {
					t.Error("another network gets the result of the first")
				}
			})
		})
	}
}
