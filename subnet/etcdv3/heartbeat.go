package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/coreos/flannel/subnet"
)

const (
	// beatEvery is the mean pause between two heartbeats; each is up to half
	// longer or shorter, so that hosts that started together drift apart.
	beatEvery = 2 * time.Second
	// beatLimit is how long the answer to a heartbeat may take, at first. A
	// store that is slow because it has too much to do must not get all hosts'
	// new connections on top: the limit doubles with each answer that is
	// missing, up to beatLimitMost, until there is one again.
	beatLimit     = 1500 * time.Millisecond
	beatLimitMost = 12 * time.Second
)

// errSilent: the store's end of the connection is there and does not answer, or
// is gone and did not say so.
var errSilent = errors.New("etcd has stopped answering")

// heartbeat finds out that the stream of a watch leads nowhere. A watch that
// says nothing looks the same as one that nothing happens in, and gRPC's own
// pings take 15 s to tell: its clients do not ping more often than every 10 s,
// and etcd refuses those that do it more often than every 5 s
// (--grpc-keepalive-min-time). A heartbeat is a second watch on the same stream,
// of a key that nobody writes, which is over when etcd has confirmed it. A
// request for progress would be the other way, but etcd up to 3.4.24 and 3.5.7
// answers it ahead of events that it has yet to deliver.
type heartbeat struct {
	key string

	mu    sync.Mutex
	limit time.Duration // of the next; guarded by mu
}

func newHeartbeat(cfg subnet.StoreConfig) *heartbeat {
	// The directory's own name: who may read the leases may watch it.
	return &heartbeat{key: cfg.LeaseDir(), limit: beatLimit}
}

// run beats until ctx, that of the watch, ends; it ends it itself, with
// errSilent, when an answer is missing.
func (h *heartbeat) run(ctx context.Context, c *clientv3.Client, cancel context.CancelCauseFunc) {
	for {
		select {
		case <-time.After(beatEvery/2 + rand.N(beatEvery)):
		case <-ctx.Done():
			return
		}
		limit := h.now()
		answered := beat(ctx, c, h.key, limit)
		if ctx.Err() != nil {
			return
		}
		h.adapt(answered)
		if !answered {
			cancel(fmt.Errorf("%w: no answer within %v", errSilent, limit))
			return
		}
	}
}

// beat reports whether etcd answers within the limit. A refusal is an answer.
func beat(ctx context.Context, c *clientv3.Client, key string, limit time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	confirmed := c.Watch(ctx, key, clientv3.WithCreatedNotify()) // returns with the answer, or when ctx ends
	answered := ctx.Err() == nil
	cancel()
	for range confirmed { // until the client's goroutine has let go of it
	}
	return answered
}

func (h *heartbeat) now() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limit
}

func (h *heartbeat) adapt(answered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if answered {
		h.limit = beatLimit
	} else {
		h.limit = min(2*h.limit, beatLimitMost)
	}
}
