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

// errCut: no endpoint is connected. The client would wait and resume the watch
// by itself; the caller must learn of it.
var errCut = errors.New("connection to etcd is lost")

// errHistory: the store has, or may have, another history than that of the list.
var errHistory = fmt.Errorf("the store has another history: %w", subnet.ErrCompacted)

// Watch implements subnet.Source.
//
// A value that does not parse is left out. If a bad value overwrites a good one,
// the peer keeps the good one until its key is written again, deleted or expires:
// an operator's mistake must not disconnect a host.
func (s *Store) Watch(ctx context.Context, p subnet.Position, fn func(subnet.Rev, []subnet.Event)) error {
	err := s.watch(ctx, p, fn)
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case s.isClosed():
		err = subnet.ErrClosed
	case errors.Is(err, errCut):
		err = s.reason(ctx, err)
	}
	return fmt.Errorf("watch %s from revision %d: %w", s.cfg.LeaseDir(), p.Rev, withRemedy(err, s.cfg))
}

func (s *Store) watch(ctx context.Context, p subnet.Position, fn func(subnet.Rev, []subnet.Event)) error {
	rev := p.Rev
	number, changed := s.history.Number()
	if p.History != 0 && p.History != number {
		return errHistory
	}
	c, err := s.watchClient(ctx)
	if err != nil {
		return err
	}
	// Without this, a member without a leader keeps the watch and delivers
	// nothing.
	ctx, cancel := context.WithCancelCause(clientv3.WithRequireLeader(ctx))
	ctx = context.WithValue(ctx, watchKey{}, &watchStream{cancel: cancel})
	var monitors sync.WaitGroup
	monitors.Go(func() { cancelWhenCut(ctx, c.ActiveConnection(), cancel) })
	monitors.Go(func() { cancelWhenChanged(ctx, changed, cancel) })
	defer monitors.Wait()
	defer cancel(nil)

	// Watch returns when the server has confirmed it, or ctx has ended.
	confirmed := time.AfterFunc(s.timeout, func() {
		cancel(fmt.Errorf("no answer within %v from %s: %w", s.timeout, s.endpoints(), context.DeadlineExceeded))
	})
	responses := c.Watch(ctx, s.cfg.LeaseDir(), clientv3.WithPrefix(), clientv3.WithRev(int64(rev)+1),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment())
	confirmed.Stop()
	defer func() {
		cancel(nil)
		for range responses { // until the client has released it
		}
	}()

	monitors.Go(func() { s.heartbeat.run(ctx, c, cancel) })
	for resp := range responses {
		// The answer's own header, too, was observed before it came here.
		if now, _ := s.history.Number(); now != number {
			cancel(errHistory)
		}
		if ctx.Err() != nil {
			break
		}
		next, events, err := s.read(rev, resp)
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
			s.drop(c)
		}
		return cause
	}
	return errors.New("etcd ended the watch")
}

// watchClient returns a client with a new token, if there is a user: etcd refuses a
// watch with an old one by "permission denied", without mentioning the token.
func (s *Store) watchClient(ctx context.Context) (*clientv3.Client, error) {
	c, err := s.connection()
	if err == nil && s.login.user != "" {
		err = s.call(ctx, "log in", s.login.renew)
	}
	return c, err
}

// read returns the events in resp and the revision to resume at. That is the last
// event's: the header's may be ahead while the server catches up.
func (s *Store) read(rev subnet.Rev, resp clientv3.WatchResponse) (subnet.Rev, []subnet.Event, error) {
	if err := resp.Err(); errors.Is(err, rpctypes.ErrCompacted) {
		return 0, nil, subnet.ErrCompacted
	} else if err != nil {
		return 0, nil, err
	}
	now := subnet.Rev(resp.Header.Revision)
	if now < rev {
		// The store was restored from a backup or created again: we would miss
		// its changes until it reaches rev. A member that lags behind looks the
		// same; listing again does no harm then.
		return 0, nil, fmt.Errorf("the store is back at revision %d: %w", now, subnet.ErrCompacted)
	}
	if resp.IsProgressNotify() {
		return now, nil, nil
	}
	var events []subnet.Event
	for _, e := range resp.Events {
		rev = subnet.Rev(e.Kv.ModRevision)
		if e.Type == clientv3.EventTypeDelete {
			l, err := subnet.ParseKey(strings.TrimPrefix(string(e.Kv.Key), s.cfg.LeaseDir()))
			if err == nil { // a bad key was never delivered
				l.Rev = rev
				events = append(events, subnet.Event{Type: subnet.Removed, Lease: &l})
			}
			continue
		}
		l, err := s.decode(e.Kv)
		if err != nil {
			s.bad.Skip(string(e.Kv.Key), err)
			continue
		}
		events = append(events, subnet.Event{Type: subnet.Added, Lease: &l})
	}
	return rev, events, nil
}

// cancelWhenChanged cancels with errHistory when the store has another history. It
// returns when ctx ends.
func cancelWhenChanged(ctx context.Context, changed <-chan struct{}, cancel context.CancelCauseFunc) {
	select {
	case <-changed:
		cancel(errHistory)
	case <-ctx.Done():
	}
}

// cancelWhenCut cancels with errCut when every endpoint has failed. It returns
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

// reason makes a call, whose error is the reason why there is no connection.
func (s *Store) reason(ctx context.Context, cut error) error {
	_, err := s.Config(ctx)
	if err == nil || errors.Is(err, subnet.ErrNoConfig) {
		return cut // it is back
	}
	return err
}
