package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet/etcd"
)

// errSilent: the other end of the connection does not answer, or vanished
// without closing it.
var errSilent = errors.New("etcd has stopped answering")

// heartbeat detects a watch whose stream is dead, which looks like one without
// events. gRPC's own pings take 15 s for that: clients ping every 10 s at most,
// and etcd refuses more than one ping in 5 s (--grpc-keepalive-min-time).
//
// A heartbeat is a second watch on the same stream, of a key that is never
// written; etcd confirms it. It lasts until the next heartbeat. A progress request
// is no alternative: etcd up to 3.4.24 and 3.5.7 answers it before events that it
// has yet to deliver.
type heartbeat struct {
	key    string
	timing etcd.HeartbeatTiming
}

func newHeartbeat(cfg etcd.ClientConfig) *heartbeat {
	// The directory's own name: a user that may read the leases may watch it.
	return &heartbeat{key: cfg.LeaseDir()}
}

// run sends heartbeats until ctx, that of the watch, ends. If an answer is
// missing, run cancels the watch with errSilent.
func (h *heartbeat) run(ctx context.Context, c *clientv3.Client, cancel context.CancelCauseFunc) {
	var last probe
	defer func() { last.end() }()
	for {
		select {
		case <-time.After(h.timing.Interval()):
		case <-ctx.Done():
			return
		}
		timeout := h.timing.Timeout()
		next, answered := last.next(ctx, c, h.key, timeout)
		last.end()
		last = next
		if ctx.Err() != nil {
			return
		}
		h.timing.Answered(answered)
		if !answered {
			cancel(fmt.Errorf("%w: no answer within %v", errSilent, timeout))
			return
		}
	}
}

// probe is a watch of a key that is never written. The zero probe is none.
type probe struct {
	cancel    context.CancelFunc
	confirmed clientv3.WatchChan
}

// next starts another probe and reports whether etcd answers in time; a refusal
// is an answer. It cancels p first, so that one message carries both requests.
func (p probe) next(ctx context.Context, c *clientv3.Client, key string, timeout time.Duration) (n probe, answered bool) {
	if p.cancel != nil {
		p.cancel()
	}
	ctx, n.cancel = context.WithCancel(ctx)
	late := time.AfterFunc(timeout, n.cancel)
	defer late.Stop()
	n.confirmed = c.Watch(ctx, key, clientv3.WithCreatedNotify()) // returns with the answer, or when ctx ends
	return n, ctx.Err() == nil
}

// end cancels p and waits until the client has released it.
func (p probe) end() {
	if p.cancel == nil {
		return
	}
	p.cancel()
	for range p.confirmed {
	}
}
