package subnet

import (
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/clock"
)

const (
	// pulseEvery is how often the store has to show that it is there.
	pulseEvery = 2 * time.Second
	// PulseLimit is how long the answer to a heartbeat may take, at first. A
	// store that is slow because it has too much to do must not get all hosts'
	// new connections on top: the limit doubles with each answer that is
	// missing, up to pulseLimitMost, until there is one again.
	PulseLimit     = 1500 * time.Millisecond
	pulseLimitMost = 12 * time.Second
)

// Pulse is the timing of the heartbeats by which a Registry finds out that a
// Watch leads nowhere: one that says nothing looks the same as one that nothing
// happens in. The zero Pulse is ready; it is safe for concurrent use.
type Pulse struct {
	mu     sync.Mutex
	missed int // answers in a row; guarded by mu
}

// Pause is the time to the next heartbeat.
func (p *Pulse) Pause() time.Duration { return clock.UntilTick(pulseEvery) }

// Limit is how long the answer to the next heartbeat may take.
func (p *Pulse) Limit() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit := PulseLimit
	for range p.missed {
		limit = min(2*limit, pulseLimitMost)
	}
	return limit
}

// Answered notes whether an answer came in time.
func (p *Pulse) Answered(inTime bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.missed = min(p.missed+1, 8) // more make no longer limit
	if inTime {
		p.missed = 0
	}
}
