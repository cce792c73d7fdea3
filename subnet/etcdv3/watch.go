package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/coreos/flannel/subnet"
)

// errCut: no endpoint is connected. The client would go on waiting and resume
// the watch by itself; the caller wants to know.
var errCut = errors.New("connection to etcd is lost")

// Watch implements subnet.Registry.
//
// A value that does not parse is left out: a peer whose good value is
// overwritten by a bad one keeps the good one until its key is written again,
// deleted or expires, because one slip of an operator's hand shall not take a
// host off the network.
func (r *Registry) Watch(ctx context.Context, rev subnet.Rev, fn func(subnet.Rev, []subnet.Event)) error {
	err := r.watch(ctx, rev, fn)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case r.isClosed():
		err = ErrClosed
	case errors.Is(err, errCut):
		err = r.reason(ctx, err)
	}
	return fmt.Errorf("watch %s from revision %d: %w", r.cfg.LeaseDir(), rev, withRemedy(err, r.cfg))
}

func (r *Registry) watch(ctx context.Context, rev subnet.Rev, fn func(subnet.Rev, []subnet.Event)) error {
	c, err := r.connection()
	if err != nil {
		return err
	}
	if r.login.user != "" {
		// etcd refuses a watch with an old token by "permission denied", which
		// says nothing about tokens.
		if err := r.call(ctx, "log in", r.login.renew); err != nil {
			return err
		}
	}
	// A member that has lost its leader would otherwise keep the watch and
	// deliver nothing.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	var monitors sync.WaitGroup
	monitors.Go(func() { cancelWhenCut(ctx, c.ActiveConnection(), cancel) })
	defer monitors.Wait()
	defer cancel(nil)

	// Watch returns when the server has confirmed, or ctx has ended.
	limit := time.AfterFunc(r.limit, func() {
		cancel(fmt.Errorf("no answer within %v from %s: %w", r.limit, r.endpoints(), context.DeadlineExceeded))
	})
	responses := c.Watch(ctx, r.cfg.LeaseDir(), clientv3.WithPrefix(), clientv3.WithRev(int64(rev)+1),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())
	limit.Stop()
	defer func() {
		cancel(nil)
		for range responses { // until the client's goroutine has let go of it
		}
	}()

	monitors.Go(func() { r.heartbeat.run(ctx, c, cancel) })
	for resp := range responses {
		if ctx.Err() != nil {
			break
		}
		next, events, err := r.read(rev, resp)
		if err != nil {
			return err
		}
		if next > rev || resp.Created {
			rev = next
			fn(rev, events)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		if errors.Is(cause, errSilent) {
			r.drop(c)
		}
		return cause
	}
	return errors.New("etcd ended the watch")
}

// read returns the events in resp and the revision to resume at. That is the
// last event's: the header's may be ahead of it while the server catches up.
func (r *Registry) read(rev subnet.Rev, resp clientv3.WatchResponse) (subnet.Rev, []subnet.Event, error) {
	if err := resp.Err(); errors.Is(err, rpctypes.ErrCompacted) {
		return 0, nil, subnet.ErrCompacted
	} else if err != nil {
		return 0, nil, err
	}
	now := subnet.Rev(resp.Header.Revision)
	if now < rev {
		// The store was restored from a backup or made anew: what it does until
		// it is at rev again would pass us by. A member that lags behind looks
		// the same; to list again does no harm then.
		return 0, nil, fmt.Errorf("the store is back at revision %d: %w", now, subnet.ErrCompacted)
	}
	if !r.continues(resp.Header) {
		return 0, nil, fmt.Errorf("the store has another history: %w", subnet.ErrCompacted)
	}
	if resp.IsProgressNotify() {
		return now, nil, nil
	}
	var events []subnet.Event
	for _, e := range resp.Events {
		rev = subnet.Rev(e.Kv.ModRevision)
		if e.Type == clientv3.EventTypeDelete {
			l, err := subnet.ParseKey(strings.TrimPrefix(string(e.Kv.Key), r.cfg.LeaseDir()))
			if err == nil { // a bad key was never told of
				l.Rev = rev
				events = append(events, subnet.Event{Type: subnet.Removed, Lease: &l})
			}
			continue
		}
		l, err := r.decode(e.Kv)
		if err != nil {
			r.bad.Skip(string(e.Kv.Key), err)
			continue
		}
		events = append(events, subnet.Event{Type: subnet.Added, Lease: &l})
	}
	return rev, events, nil
}

// cancelWhenCut cancels with errCut when every endpoint has failed, and returns
// when ctx ends.
func cancelWhenCut(ctx context.Context, conn *grpc.ClientConn, cancel context.CancelCauseFunc) {
	for {
		state := conn.GetState()
		if state == connectivity.TransientFailure || state == connectivity.Shutdown {
			cancel(errCut)
			return
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// reason asks for anything, to learn from the refusal why there is no
// connection.
func (r *Registry) reason(ctx context.Context, cut error) error {
	_, err := r.Config(ctx)
	if err == nil || errors.Is(err, subnet.ErrNoConfig) {
		return cut // it is back
	}
	return err
}
