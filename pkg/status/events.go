package status

import (
	"slices"
	"sync"
	"time"
)

// capacity is how many events are remembered.
const capacity = 100

// EventLog remembers the last 100 events. The zero EventLog is empty and ready for use;
// its methods are safe for concurrent use.
type EventLog struct {
	mu     sync.Mutex
	events []Event // the oldest first
}

// Add remembers text as happening now.
func (r *EventLog) Add(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == capacity {
		r.events = slices.Delete(r.events, 0, 1)
	}
	r.events = append(r.events, Event{time.Now(), text})
}

// Recent returns what is remembered, the latest first.
func (r *EventLog) Recent() []Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	recent := slices.Clone(r.events)
	slices.Reverse(recent)
	return recent
}
