package status

import (
	"slices"
	"sync"
	"time"
)

// capacity is how many events an EventLog keeps.
const capacity = 100

// EventLog keeps the last 100 events. The zero EventLog is empty. Its methods are
// safe for concurrent use.
type EventLog struct {
	mu     sync.Mutex
	events []Event // oldest first
}

// Add adds an event that happens now.
func (l *EventLog) Add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == capacity {
		l.events = slices.Delete(l.events, 0, 1)
	}
	l.events = append(l.events, Event{time.Now(), text})
}

// Recent returns the events, the latest first.
func (l *EventLog) Recent() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := slices.Clone(l.events)
	slices.Reverse(recent)
	return recent
}
