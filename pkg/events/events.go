// Package events remembers the last things that happened, in words, for those
// who look at the status page rather than at the log.
package events

import (
	"slices"
	"sync"
	"time"
)

// capacity is how many events are remembered.
const capacity = 100

// Event is one thing that happened.
type Event struct {
	Time time.Time
	Text string
}

// Ring remembers the last 100 events. The zero Ring is empty and ready for use;
// its methods are safe for concurrent use.
type Ring struct {
	mu     sync.Mutex
	events []Event // the oldest first
}

// Add remembers text as happening now.
func (r *Ring) Add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == capacity {
		r.events = slices.Delete(r.events, 0, 1)
	}
	r.events = append(r.events, Event{time.Now(), text})
}

// Recent returns what is remembered, the latest first.
func (r *Ring) Recent() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := slices.Clone(r.events)
	slices.Reverse(recent)
	return recent
}
