package subnettest

import (
	"time"

	"github.com/coreos/flannel/subnet"
)

// Put writes any bytes to a key below <prefix>/subnets/, as an operator or
// another program would. A ttl of 0 makes a reservation.
func (f *Fake) Put(key string, value []byte, ttl time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put(key, append([]byte{}, value...), ttl)
}

// Remove deletes a key, as an operator does to revoke a lease.
func (f *Fake) Remove(key string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove(key)
}

// SetConfig replaces the network configuration; nil removes it.
func (f *Fake) SetConfig(config []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rev++
	f.config = config
}

// Compact discards the history up to now. A watch that has seen all of it
// continues; one that resumes at an older revision gets ErrCompacted.
func (f *Fake) Compact() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.compacted = f.rev
	f.history = nil
	f.wake()
}

// BreakWatches makes the watches in progress return err.
func (f *Fake) BreakWatches(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.broken = err
	f.watchGen++
	f.wake()
}

// A Copy is the data of a Fake.
type Copy struct {
	keys map[string]savedKey
	rev  subnet.Rev
}

// savedKey is one key of a Copy; ttl is 0 for a reservation.
type savedKey struct {
	value        []byte
	rev, created subnet.Rev
	ttl          time.Duration
}

// Copy returns the data as they are now.
func (f *Fake) Copy() Copy {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	c := Copy{make(map[string]savedKey), f.rev}
	for key, e := range f.keys {
		ttl := time.Duration(0)
		if e.timer != nil {
			ttl = time.Until(e.ends)
		}
		c.keys[key] = savedKey{e.value, e.rev, e.created, ttl}
	}
	return c
}

// Restore replaces the data by a copy, the zero Copy for an empty store. The
// configuration stays. A history begins in which revisions have other meanings.
func (f *Fake) Restore(c Copy) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.keys {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	f.keys, f.history = make(map[string]*entry), nil
	f.rev = max(c.rev, 1)
	f.compacted = f.rev
	f.epoch++
	for key, saved := range c.keys {
		e := &entry{value: saved.value, rev: saved.rev, created: saved.created}
		f.keys[key] = e
		f.schedule(key, e, saved.ttl)
	}
	f.wake()
}

// The rest is called with f.mu held.

func (f *Fake) put(key string, value []byte, ttl time.Duration) *entry {
	e := f.keys[key]
	f.rev++
	if e == nil {
		e = &entry{created: f.rev}
		f.keys[key] = e
	}
	e.value, e.rev = value, f.rev
	f.schedule(key, e, ttl)
	f.record(e.change(key))
	return e
}

func (f *Fake) remove(key string) {
	e := f.keys[key]
	if e == nil {
		return
	}
	if e.timer != nil {
		e.timer.Stop()
	}
	delete(f.keys, key)
	f.rev++
	f.record(change{rev: f.rev, key: key})
}

// schedule sets the end of e to ttl from now; 0 for none.
func (f *Fake) schedule(key string, e *entry, ttl time.Duration) {
	if e.timer != nil {
		e.timer.Stop()
	}
	e.timer, e.ends = nil, time.Time{}
	if ttl == 0 {
		return
	}
	e.ends = time.Now().Add(ttl)
	e.timer = time.AfterFunc(ttl, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.expire()
	})
}

// expire removes leases that have ended. Calls use it as well as the timers: a
// test that has waited for the end of a lease must not depend on a late timer.
func (f *Fake) expire() {
	now := time.Now()
	for key, e := range f.keys {
		if e.timer != nil && !now.Before(e.ends) {
			f.remove(key)
		}
	}
}

func (f *Fake) record(c change) {
	f.history = append(f.history, c)
	f.wake()
}

func (f *Fake) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// since returns the events after rev and the revision to resume at.
func (f *Fake) since(rev subnet.Rev) (subnet.Rev, []subnet.Event) {
	var events []subnet.Event
	for _, c := range f.history {
		if c.rev <= rev {
			continue
		}
		rev = c.rev
		if c.value == nil {
			if l, err := subnet.ParseKey(c.key); err == nil {
				l.Rev = c.rev
				events = append(events, subnet.Event{Type: subnet.Removed, Lease: &l})
			}
			continue
		}
		l, err := decode(c)
		if err != nil {
			f.bad.Skip(c.key, err)
			continue
		}
		events = append(events, subnet.Event{Type: subnet.Added, Lease: &l})
	}
	return rev, events
}
