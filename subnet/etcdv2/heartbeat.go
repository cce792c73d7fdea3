package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"time"

	goetcd "github.com/coreos/go-etcd/etcd"
)

// errSilent: the other end of the connections does not answer, or vanished
// without closing them.
var errSilent = errors.New("etcd has stopped answering")

// heartbeat detects a dead wait, until ctx, that of the wait, ends. HTTP/1.1 has
// no keepalive messages, and a second request does not test the connection of the
// first. But each answer carries the server's index.
//
//   - The index has advanced and the wait has not returned: heartbeat restarts the
//     wait (errIdle). The new wait returns what the old one missed, or shows that
//     only other keys changed.
//   - The connection of the answer before was ended by the server, which keeps
//     them: it may have been restarted with other data. The caller lists again
//     (errHistory).
//   - No answer, or the wait was not accepted by the second answer: heartbeat gives
//     up the connections (errSilent).
func (s *Store) heartbeat(ctx context.Context, cancel context.CancelCauseFunc, began func() uint64) {
	var beats connections
	for notAccepted := 0; ; {
		select {
		case <-time.After(s.timing.Interval()):
		case <-ctx.Done():
			return
		}
		timeout := s.timing.Timeout()
		index, err := s.index(beats.trace(ctx), timeout)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			s.timing.Answered(false)
			s.closeIdle() // the request's own connection is closed already
			cancel(fmt.Errorf("%w: no answer within %v from %s", errSilent, timeout, s.endpoints()))
			return
		}
		s.timing.Answered(true) // a refusal is an answer
		switch at := began(); {
		case beats.replaced():
			cancel(errHistory)
			return
		case err != nil || index == at:
		case at == 0 && notAccepted == 0:
			notAccepted++ // to log in may take a busy server a while
		case at == 0:
			cancel(fmt.Errorf("%w: it answers other requests, but has not accepted the wait", errSilent))
			return
		default:
			cancel(errIdle)
			return
		}
	}
}

// index requests the server's index, by a small read.
func (s *Store) index(ctx context.Context, timeout time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var index uint64
	_, err := s.exchange(context.WithValue(ctx, headersKey{}, func(i uint64) { index = i }),
		func(c *goetcd.Client) (*goetcd.Response, error) { return c.Get(s.cfg.ConfigKey(), false, false) })
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if code(err) == codeKeyNotFound {
		err = nil
	}
	return index, err
}
