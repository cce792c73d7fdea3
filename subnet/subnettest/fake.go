package subnettest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Fake is a subnet.Keyspace and subnet.Admin in memory. It keeps history like
// etcd v3: an Update without a change wakes no watcher, and Compact discards the
// history.
//
// It uses the clock of package time: in a testing/synctest bubble, leases expire
// in the bubble's time. Its other methods are the back door, which faults do not
// affect.
type Fake struct {
	faults faults
	bad    subnet.BadData
	closed chan struct{}

	mu        sync.Mutex // guards what follows
	config    []byte
	keys      map[string]*entry
	rev       subnet.Rev
	epoch     uint64 // subnet.Position.History
	history   []change
	compacted subnet.Rev    // history up to here is gone
	changed   chan struct{} // closed and replaced at each change of this group
	broken    error         // returned by the watches in progress
	watchGen  int           // watches of older generations are broken
}

// entry is a key's value; timer is nil for a reservation.
type entry struct {
	value        []byte
	rev, created subnet.Rev
	ends         time.Time
	timer        *time.Timer
}

// change is one revision; value is nil if the key was removed.
type change struct {
	rev, created subnet.Rev
	key          string
	value        []byte
	ends         time.Time
}

// NewFake returns an empty store.
func NewFake() *Fake {
	return &Fake{closed: make(chan struct{}), keys: make(map[string]*entry), rev: 1, epoch: 1,
		changed: make(chan struct{})}
}

// BadCount implements subnet.Source.
func (f *Fake) BadCount() uint64 { return f.bad.Count() }

// Config implements subnet.Source.
func (f *Fake) Config(ctx context.Context) ([]byte, error) {
	if err, lostAck := f.enter(ctx, OpConfig); err != nil || lostAck != nil {
		return nil, errors.Join(err, lostAck)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.config == nil {
		return nil, subnet.ErrNoConfig
	}
	return append([]byte(nil), f.config...), nil
}

// PublishConfig implements subnet.Admin.
func (f *Fake) PublishConfig(ctx context.Context, config []byte) (bool, error) {
	err, lostAck := f.enter(ctx, OpPublishConfig)
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.config != nil {
		return false, lostAck
	}
	f.rev++
	f.config = append([]byte{}, config...)
	return lostAck == nil, lostAck
}

// List implements subnet.Source.
func (f *Fake) List(ctx context.Context) ([]subnet.Lease, subnet.Position, error) {
	if err, lostAck := f.enter(ctx, OpList); err != nil || lostAck != nil {
		return nil, subnet.Position{}, errors.Join(err, lostAck)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.list(), subnet.Position{Rev: f.rev, History: f.epoch}, nil
}

// Get implements subnet.Keyspace.
func (f *Fake) Get(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	if err, lostAck := f.enter(ctx, OpGet); err != nil || lostAck != nil {
		return subnet.Lease{}, fmt.Errorf("get lease %v: %w", l, errors.Join(err, lostAck))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	e := f.keys[l.Key()]
	if e == nil {
		return subnet.Lease{}, fmt.Errorf("get lease %v: %w", l, subnet.ErrConflict)
	}
	now, err := decode(e.change(l.Key()))
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("get lease %v: %w: %w", l, subnet.ErrUnreadable, err)
	}
	return now, nil
}

// Overlapping implements subnet.Keyspace.
func (f *Fake) Overlapping(ctx context.Context, l subnet.Lease) ([]subnet.Lease, error) {
	if err, lostAck := f.enter(ctx, OpOverlapping); err != nil || lostAck != nil {
		return nil, errors.Join(err, lostAck)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(f.list(), func(other subnet.Lease) bool { return !other.Overlaps(l) }), nil
}

// list is called with mu held.
func (f *Fake) list() (leases []subnet.Lease) {
	f.expire()
	for key, e := range f.keys {
		l, err := decode(e.change(key))
		if err != nil {
			f.bad.Skip(key, err)
			continue
		}
		leases = append(leases, l)
	}
	return leases
}

// Create implements subnet.Keyspace.
func (f *Fake) Create(ctx context.Context, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	value, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %v: %w", l, err)
	}
	err, lostAck := f.enter(ctx, OpCreate)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %v: %w", l, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	if f.keys[l.Key()] != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %v: %w", l, refusal(subnet.ErrExists, lostAck))
	}
	e := f.put(l.Key(), value, ttl)
	if lostAck != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %v: %w", l, lostAck)
	}
	l.Expiration, l.Rev, l.Created, l.Reserved = e.ends, e.rev, e.created, false
	return l, nil
}

// Update implements subnet.Keyspace.
func (f *Fake) Update(ctx context.Context, stored subnet.Lease, a subnet.Attrs, ttl time.Duration) (subnet.Lease, error) {
	l := stored
	l.Attrs = a
	value, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("update lease %v: %w", l, err)
	}
	err, lostAck := f.enter(ctx, OpUpdate)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("update lease %v: %w", l, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	e := f.unchanged(stored)
	if e == nil {
		return subnet.Lease{}, fmt.Errorf("update lease %v: %w", l, refusal(subnet.ErrConflict, lostAck))
	}
	if e.timer == nil {
		ttl = 0
	}
	if stored.Attrs.Equal(a) {
		f.schedule(l.Key(), e, ttl)
	} else {
		e = f.put(l.Key(), value, ttl)
	}
	if lostAck != nil {
		return subnet.Lease{}, fmt.Errorf("update lease %v: %w", l, lostAck)
	}
	l.Expiration, l.Rev, l.Created, l.Reserved = e.ends, e.rev, e.created, e.timer == nil
	return l, nil
}

// Move implements subnet.Keyspace.
func (f *Fake) Move(ctx context.Context, stored, l subnet.Lease, ttl time.Duration) (subnet.Lease, error) {
	value, err := subnet.EncodeLease(l)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("move lease %v: %w", l, err)
	}
	err, lostAck := f.enter(ctx, OpMove)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("move lease %v: %w", l, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	e := f.unchanged(stored)
	switch {
	case f.keys[l.Key()] != nil:
		err = subnet.ErrExists
	case e == nil:
		err = subnet.ErrConflict
	}
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("move lease %v: %w", l, refusal(err, lostAck))
	}
	if e.timer == nil {
		ttl = 0
	}
	f.remove(stored.Key())
	e = f.put(l.Key(), value, ttl)
	if lostAck != nil {
		return subnet.Lease{}, fmt.Errorf("move lease %v: %w", l, lostAck)
	}
	l.Expiration, l.Rev, l.Created, l.Reserved = e.ends, e.rev, e.created, e.timer == nil
	return l, nil
}

// Delete implements subnet.Keyspace and subnet.Admin.
func (f *Fake) Delete(ctx context.Context, l subnet.Lease) error {
	err, lostAck := f.enter(ctx, OpDelete)
	if err != nil {
		return fmt.Errorf("delete lease %v: %w", l, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire()
	if f.unchanged(l) == nil {
		return fmt.Errorf("delete lease %v: %w", l, refusal(subnet.ErrConflict, lostAck))
	}
	f.remove(l.Key())
	if lostAck != nil {
		return fmt.Errorf("delete lease %v: %w", l, lostAck)
	}
	return nil
}

// unchanged returns the entry of stored's key, nil if it was written since. It is
// called with mu held.
func (f *Fake) unchanged(stored subnet.Lease) *entry {
	e := f.keys[stored.Key()]
	if e == nil {
		return nil
	}
	now, err := decode(e.change(stored.Key()))
	if err != nil || !stored.StoredAs(now) {
		return nil
	}
	return e
}

// Watch implements subnet.Source.
func (f *Fake) Watch(ctx context.Context, p subnet.Position, fn func(subnet.Rev, []subnet.Event)) error {
	if err, lostAck := f.enter(ctx, OpWatch); err != nil || lostAck != nil {
		return errors.Join(err, lostAck)
	}
	f.mu.Lock()
	gen, accepted, rev := f.watchGen, false, p.Rev
	f.mu.Unlock()
	for {
		f.mu.Lock()
		changed, broken := f.changed, f.broken
		lost := rev < f.compacted || rev > f.rev || p.History != 0 && p.History != f.epoch
		next, events := f.since(rev)
		stale := gen != f.watchGen
		f.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case f.isClosed():
			return subnet.ErrClosed
		case stale:
			return broken
		case lost:
			return fmt.Errorf("watch leases from revision %d: %w", rev, subnet.ErrCompacted)
		}
		if next > rev || !accepted {
			fn(next, events)
			rev, accepted = next, true
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
		case <-f.closed:
		}
	}
}

// Close implements subnet.Source.
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.isClosed() {
		return nil
	}
	close(f.closed)
	for _, e := range f.keys {
		if e.timer != nil {
			e.timer.Stop()
		}
	}
	return nil
}

// refusal returns the error for the caller: lostAck if the answer got lost.
func refusal(err, lostAck error) error {
	if lostAck != nil {
		return lostAck
	}
	return err
}

func (f *Fake) isClosed() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

func (e *entry) change(key string) change { return change{e.rev, e.created, key, e.value, e.ends} }

func decode(c change) (subnet.Lease, error) {
	l, err := subnet.ParseLease(c.key, c.value)
	l.Rev, l.Created, l.Expiration, l.Reserved = c.rev, c.created, c.ends, c.ends.IsZero()
	return l, err
}
