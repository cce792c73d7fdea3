package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

var (
	// errIdle: a wait ended without an event.
	errIdle = errors.New("nothing happened")
	// errHistory: the store has, or may have, another history than that of the list.
	errHistory = fmt.Errorf("the store has another history: %w", subnet.ErrCompacted)
)

// Watch implements subnet.Source. Each wait returns one event. A value that does
// not parse is left out. If a bad value overwrites a good one, the peer keeps the
// good one until its key is written again, deleted or expires.
func (s *Store) Watch(ctx context.Context, p subnet.Position, fn func(subnet.Rev, []subnet.Event)) error {
	from, rev := p.Rev, p.Rev
	number, changed := s.history.Number()
	watching, stop := context.WithCancelCause(ctx)
	var monitor sync.WaitGroup
	defer monitor.Wait()
	defer stop(nil)
	monitor.Go(func() {
		select {
		case <-changed:
			stop(errHistory)
		case <-watching.Done():
		}
	})
	var waits connections
	for {
		var resp *goetcd.Response
		var index uint64
		var events []subnet.Event
		err := errHistory
		if p.History == 0 || p.History == number {
			resp, index, err = s.waitAfter(watching, rev, &waits, func() { fn(rev, nil) })
		}
		switch {
		case errors.Is(err, errIdle):
			// When the server accepted the wait, at index, it had no event after
			// rev: all changes up to index were of other keys. Resuming there keeps
			// us within the last 1000 changes.
			rev = max(rev, subnet.Rev(index))
		case err == nil:
			rev, events, err = s.read(resp)
		}
		now, _ := s.history.Number()
		switch {
		case ctx.Err() != nil:
			err = ctx.Err()
		case s.life.Err() != nil:
			err = subnet.ErrClosed
		case now != number:
			err = errHistory // also of the answer at hand
		case code(err) == codeIndexCleared:
			err = subnet.ErrCompacted
		case err == nil || errors.Is(err, errIdle):
			fn(rev, events)
			continue
		}
		return fmt.Errorf("watch %s from index %d: %w", s.cfg.LeaseDir(), from, err)
	}
}

// waitAfter waits for the first change after rev, at most s.wait (errIdle). It
// returns the server's index at the start of the wait. The server must accept the
// wait within the time limit of a call; then the same goroutine calls accepted.
func (s *Store) waitAfter(ctx context.Context, rev subnet.Rev, waits *connections, accepted func()) (*goetcd.Response, uint64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	answer := time.AfterFunc(s.timeout, func() {
		cancel(fmt.Errorf("no answer within %v from %s: %w", s.timeout, s.endpoints(), context.DeadlineExceeded))
	})
	defer answer.Stop()
	idle := time.AfterFunc(s.wait, func() { cancel(errIdle) })
	defer idle.Stop()
	var index atomic.Uint64
	var heartbeats sync.WaitGroup
	defer heartbeats.Wait()
	defer cancel(nil)
	heartbeats.Go(func() { s.heartbeat(ctx, cancel, index.Load) }) // promise: v2-watch-has-heartbeat
	receiving := context.WithValue(waits.trace(ctx), headersKey{}, func(i uint64) {
		answer.Stop()
		index.Store(i)
		if 0 < i && i < uint64(rev) {
			// The store was restored from a backup or created again: we would miss
			// its changes until it reaches rev. A member that lags behind looks
			// the same; listing again does no harm then.
			cancel(fmt.Errorf("the store is back at index %d: %w", i, subnet.ErrCompacted))
		}
		if waits.replaced() {
			cancel(errHistory)
		}
		if ctx.Err() == nil && s.life.Err() == nil {
			accepted()
		}
	})
	resp, err := s.exchange(receiving, func(c *goetcd.Client) (*goetcd.Response, error) {
		return c.Watch(s.cfg.LeaseDir(), uint64(rev)+1, true, nil, nil)
	})
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, subnet.ErrClosed) {
		err = cause
	}
	return resp, index.Load(), err
}

// read returns the index and the events of one change.
func (s *Store) read(resp *goetcd.Response) (subnet.Rev, []subnet.Event, error) {
	n := resp.Node
	rev := subnet.Rev(n.ModifiedIndex)
	name, below := strings.CutPrefix(n.Key, s.cfg.LeaseDir())
	switch resp.Action {
	case "delete", "expire", "compareAndDelete":
		if !below {
			// The directory or one above it was deleted with all leases. The event
			// does not name them.
			return 0, nil, fmt.Errorf("%s was deleted: %w", n.Key, subnet.ErrCompacted)
		}
		l, err := subnet.ParseKey(name)
		if err != nil {
			return rev, nil, nil // a bad key was never delivered
		}
		l.Rev = rev
		return rev, []subnet.Event{{Type: subnet.Removed, Lease: &l}}, nil
	case "set", "create", "update", "compareAndSwap":
		if !below {
			return rev, nil, nil // the directory was created
		}
		l, err := s.decode(n)
		if err != nil {
			s.bad.Skip(n.Key, err)
			return rev, nil, nil
		}
		return rev, []subnet.Event{{Type: subnet.Added, Lease: &l}}, nil
	}
	return 0, nil, fmt.Errorf("etcd's action %q on %s is unknown", resp.Action, n.Key)
}
