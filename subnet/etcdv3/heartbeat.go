package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

// errSilent: the store's end of the connection is there and does not answer, or
// is gone and did not say so.
var errSilent = errors.New("etcd has stopped answering")

// heartbeat finds out that the stream of a watch leads nowhere. A watch that
// says nothing looks the same as one that nothing happens in, and gRPC's own
// pings take 15 s to tell: its clients do not ping more often than every 10 s,
// and etcd refuses those that do it more often than every 5 s
// (--grpc-keepalive-min-time). A heartbeat is a second watch on the same stream,
// of a key that nobody writes, which etcd confirms; it lasts until the next. A
// request for progress would be the other way, but etcd up to 3.4.24 and 3.5.7
// answers it ahead of events that it has yet to deliver.
type heartbeat struct {
	key   string
	pulse subnet.Pulse
}

func newHeartbeat(cfg subnet.StoreConfig) *heartbeat {
	// The directory's own name: who may read the leases may watch it.
	return &heartbeat{key: cfg.LeaseDir()}
}

// run beats until ctx, that of the watch, ends; it ends it itself, with
// errSilent, when an answer is missing.
func (h *heartbeat) run(ctx context.Context, c *clientv3.Client, cancel context.CancelCauseFunc) {
	var last beat
	defer func() { last.end() }()
	for {
		select {
		case <-time.After(h.pulse.Pause()):
		case <-ctx.Done():
			return
		}
		limit := h.pulse.Limit()
		next, answered := last.next(ctx, c, h.key, limit)
		last.end()
		last = next
		if ctx.Err() != nil {
			return
		}
		h.pulse.Answered(answered)
		if !answered {
			cancel(fmt.Errorf("%w: no answer within %v", errSilent, limit))
			return
		}
	}
}

// beat is a watch of a key that nobody writes. The zero beat is none.
type beat struct {
	cancel    context.CancelFunc
	confirmed clientv3.WatchChan
}

// next begins another, and reports whether etcd answers within the limit; a
// refusal is an answer. b ends with it, so that etcd is told of both at once:
// each message costs both sides more than what is in it.
func (b beat) next(ctx context.Context, c *clientv3.Client, key string, limit time.Duration) (n beat, answered bool) {
	if b.cancel != nil {
		b.cancel()
	}
	ctx, n.cancel = context.WithCancel(ctx)
	late := time.AfterFunc(limit, n.cancel)
	defer late.Stop()
	n.confirmed = c.Watch(ctx, key, clientv3.WithCreatedNotify()) // returns with the answer, or when ctx ends
	return n, ctx.Err() == nil
}

// end waits until the client's goroutine has let go of it.
func (b beat) end() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	for range b.confirmed {
	}
}
