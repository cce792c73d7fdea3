package etcd

import (
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/clock"
)

const (
	// heartbeatInterval is the time between heartbeats.
	heartbeatInterval = 2 * time.Second
	// HeartbeatTimeout is the time limit of the first heartbeat. An overloaded
	// store must not get the new connections of all hosts as well. So the limit
	// doubles with each missing answer, up to maxHeartbeatTimeout; an answer
	// resets it.
	HeartbeatTimeout    = 1500 * time.Millisecond
	maxHeartbeatTimeout = 12 * time.Second
	// maxMissed is enough to reach maxHeartbeatTimeout.
	maxMissed = 8
)

// HeartbeatTiming is the timing of heartbeats. A store uses them to detect a
// watch whose connection is dead, which looks like one without events. The zero
// value is ready; it is safe for concurrent use.
type HeartbeatTiming struct {
	mu     sync.Mutex
	missed int // consecutive heartbeats without an answer; guarded by mu
}

// Interval returns the time to the next heartbeat.
func (t *HeartbeatTiming) Interval() time.Duration { return clock.UntilTick(heartbeatInterval) }

// Timeout returns the time limit of the next heartbeat.
func (t *HeartbeatTiming) Timeout() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return min(HeartbeatTimeout<<t.missed, maxHeartbeatTimeout)
}

// Answered records whether the answer to a heartbeat came in time.
func (t *HeartbeatTiming) Answered(inTime bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.missed = min(t.missed+1, maxMissed)
	if inTime {
		t.missed = 0
	}
}
