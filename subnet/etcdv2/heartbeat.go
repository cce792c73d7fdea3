package etcdv2

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-etcd/etcd"
)

// errSilent: the store's end of the connections is there and does not answer, or
// is gone and did not say so.
var errSilent = errors.New("etcd has stopped answering")

// beat finds out that a wait leads nowhere, until ctx, that of the wait, ends.
// HTTP/1.1 has no word for it, and a second request says nothing of the
// connection of the first. But every answer tells the server's index: where it
// has gone on from that at which the wait began, and the wait has said nothing,
// a new wait (errIdle) brings what the old one has missed, or shows that all was
// other keys'. Where there is no answer, or one to the other request only, the
// connections are given up (errSilent).
func (r *Registry) beat(ctx context.Context, cancel context.CancelCauseFunc, began func() uint64) {
	for {
		select {
		case <-time.After(r.pulse.Pause()):
		case <-ctx.Done():
			return
		}
		limit := r.pulse.Limit()
		index, err := r.index(ctx, limit)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, context.DeadlineExceeded):
			r.pulse.Answered(false)
			r.closeIdle() // the one that it was asked on is closed already
			cancel(fmt.Errorf("%w: no answer within %v from %s", errSilent, limit, r.endpoints()))
			return
		}
		r.pulse.Answered(true) // a refusal is an answer
		switch at := began(); {
		case err != nil || index == at:
		case at == 0:
			cancel(fmt.Errorf("%w: it answers others, but did not take up the wait", errSilent))
			return
		default:
			cancel(errIdle)
			return
		}
	}
}

// index asks for the server's index, and for nothing that is large.
func (r *Registry) index(ctx context.Context, limit time.Duration) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var index uint64
	_, err := r.exchange(context.WithValue(ctx, headersKey{}, func(i uint64) { index = i }),
		func(c *etcd.Client) (*etcd.Response, error) { return c.Get(r.cfg.ConfigKey(), false, false) })
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if code(err) == codeKeyNotFound {
		err = nil
	}
	return index, err
}
