package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-etcd/etcd"

	"github.com/coreos/flannel/subnet"
)

// errIdle: nothing happened for as long as a wait may last.
var errIdle = errors.New("nothing happened")

// Watch implements subnet.Registry. Each wait brings one event. A value that
// does not parse is left out: a peer whose good value is overwritten by a bad
// one keeps the good one until its key is written again, deleted or expires.
func (r *Registry) Watch(ctx context.Context, rev subnet.Rev, fn func(subnet.Rev, []subnet.Event)) error {
	from := rev
	for {
		resp, index, err := r.waitAfter(ctx, rev, func() { fn(rev, nil) })
		var events []subnet.Event
		switch {
		case errors.Is(err, errIdle):
			// When it took the request up, at index, the server had nothing for us
			// after rev: all up to index was other keys'. To ask from there keeps
			// us from falling out of the last 1000 changes.
			rev = max(rev, subnet.Rev(index))
		case err == nil:
			rev, events, err = r.read(resp)
		}
		switch {
		case err == nil || errors.Is(err, errIdle):
			if ctx.Err() == nil && r.life.Err() == nil {
				fn(rev, events)
				continue
			}
			err = ErrClosed
		case code(err) == codeIndexCleared:
			err = subnet.ErrCompacted
		}
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("watch %s from index %d: %w", r.cfg.LeaseDir(), from, err)
	}
}

// waitAfter waits for the first change after rev, for r.wait at most (errIdle).
// The index is the one that the server had reached when it began to wait. That
// the server takes the request up must not last longer than any other call; then
// taken is called, by the same goroutine.
func (r *Registry) waitAfter(ctx context.Context, rev subnet.Rev, taken func()) (*etcd.Response, uint64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	answer := time.AfterFunc(r.limit, func() {
		cancel(fmt.Errorf("no answer within %v from %s: %w", r.limit, r.endpoints(), context.DeadlineExceeded))
	})
	defer answer.Stop()
	idle := time.AfterFunc(r.wait, func() { cancel(errIdle) })
	defer idle.Stop()
	var index atomic.Uint64
	var beats sync.WaitGroup
	defer beats.Wait()
	defer cancel(nil)
	beats.Go(func() { r.beat(ctx, cancel, index.Load) })
	telling := context.WithValue(ctx, headersKey{}, func(i uint64) {
		answer.Stop()
		index.Store(i)
		if 0 < i && i < uint64(rev) {
			// The store was restored from a backup or made anew: what it does
			// until it is at rev again would pass us by. A member that lags
			// behind looks the same; to list again does no harm then.
			cancel(fmt.Errorf("the store is back at index %d: %w", i, subnet.ErrCompacted))
		}
		if ctx.Err() == nil && r.life.Err() == nil {
			taken()
		}
	})
	resp, err := r.exchange(telling, func(c *etcd.Client) (*etcd.Response, error) {
		return c.Watch(r.cfg.LeaseDir(), uint64(rev)+1, true, nil, nil)
	})
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, ErrClosed) {
		err = cause
	}
	return resp, index.Load(), err
}

// read returns the index and the events of one change.
func (r *Registry) read(resp *etcd.Response) (subnet.Rev, []subnet.Event, error) {
	n := resp.Node
	rev := subnet.Rev(n.ModifiedIndex)
	name, below := strings.CutPrefix(n.Key, r.cfg.LeaseDir())
	switch resp.Action {
	case "delete", "expire", "compareAndDelete":
		if !below {
			// The directory or one above it, and all leases with it; it is not
			// said which they were.
			return 0, nil, fmt.Errorf("%s was deleted: %w", n.Key, subnet.ErrCompacted)
		}
		l, err := subnet.ParseKey(name)
		if err != nil {
			return rev, nil, nil // a bad key was never told of
		}
		l.Rev = rev
		return rev, []subnet.Event{{Type: subnet.Removed, Lease: &l}}, nil
	case "set", "create", "update", "compareAndSwap":
		if !below {
			return rev, nil, nil // the directory was made
		}
		l, err := r.decode(n)
		if err != nil {
			r.bad.Skip(n.Key, err)
			return rev, nil, nil
		}
		return rev, []subnet.Event{{Type: subnet.Added, Lease: &l}}, nil
	}
	return 0, nil, fmt.Errorf("etcd's action %q on %s is unknown", resp.Action, n.Key)
}
