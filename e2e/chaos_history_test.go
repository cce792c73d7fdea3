package e2e

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// leaseOp is one step in the life of a lease key.
type leaseOp struct {
	kind leaseOpKind
	host string // its NodeID, or the value's substitute
	rev  int64
}

func (o leaseOp) String() string {
	return fmt.Sprintf("%s by %s at revision %d", [...]string{"written", "expired", "believed", "erased"}[o.kind], o.host, o.rev)
}

type leaseOpKind int

const (
	written  leaseOpKind = iota // acquired, or renewed by a write
	expired                     // or deleted
	reported                    // a daemon reported the subnet as its own
	erased                      // the store lost its data, and its revisions begin at 1 again
)

// ownership is the model's state: the host that had the key last, and whether
// the key is there.
type ownership struct {
	holder string
	live   bool
	rev    int64
}

// ownerModel requires one owner of a subnet. Only the holder writes an existing
// key. No host reports a subnet that another host has taken since.
var ownerModel = porcupine.Model{
	Init: func() any { return ownership{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(ownership), input.(leaseOp)
		switch op.kind {
		case written:
			moved := !s.live && op.rev == s.rev // from a key with other parts, in one transaction
			if op.rev <= s.rev && !moved || s.live && s.holder != op.host {
				return false, s
			}
			return true, ownership{op.host, true, op.rev}
		case expired:
			return s.live && op.rev > s.rev, ownership{s.holder, false, op.rev}
		case reported:
			return s.holder == op.host, s
		}
		return true, ownership{holder: s.holder} // erased
	},
}

// history records the owner of each subnet, from etcd and from the daemons. An
// event's interval begins at the arrival of the previous event and ends at its
// own: etcd committed it in between.
type history struct {
	client *clientv3.Client
	began  time.Time

	mu   sync.Mutex // guards the fields below
	ops  map[string][]porcupine.Operation
	last int64 // arrival of the last event
	err  error

	stop func() // ends the watch under way
}

func newHistory(client *clientv3.Client) *history {
	return &history{client: client, began: time.Now(), ops: make(map[string][]porcupine.Operation)}
}

func (h *history) now() int64 { return time.Since(h.began).Nanoseconds() }

// add records a step for each part of a lease. It must be called with mu held.
func (h *history) add(key string, op leaseOp, call, end int64) {
	for part := range strings.SplitSeq(key, "&") {
		h.ops[part] = append(h.ops[part], porcupine.Operation{Input: op, Call: call, Return: end})
	}
}

// follow records etcd's watch, beginning with the present keys. After leave and
// a new store it may be called again.
func (h *history) follow(t *testing.T) {
	t.Helper()
	dir := prefix + "/subnets/"
	answer, err := h.client.Get(limited(t), dir, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	for _, kv := range answer.Kvs {
		h.write(strings.TrimPrefix(string(kv.Key), dir), kv, h.last, h.now())
	}
	h.last = h.now()
	h.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		rev := answer.Header.Revision + 1
		for ctx.Err() == nil {
			for news := range h.client.Watch(clientv3.WithRequireLeader(ctx), dir, clientv3.WithPrefix(), clientv3.WithRev(rev)) {
				if news.CompactRevision > 0 {
					h.mu.Lock()
					h.err = fmt.Errorf("the history from revision %d on was compacted before it was read", rev)
					h.mu.Unlock()
					return
				}
				if news.Err() != nil {
					break // no leader: watch again
				}
				h.record(dir, news.Events)
				rev = max(rev, news.Header.Revision+1)
			}
		}
	}()
	h.stop = func() { cancel(); <-done }
	t.Cleanup(h.leave)
}

// leave ends follow.
func (h *history) leave() {
	if h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

func (h *history) record(dir string, events []*clientv3.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	for _, e := range events {
		key := strings.TrimPrefix(string(e.Kv.Key), dir)
		if e.Type == mvccpb.DELETE {
			h.add(key, leaseOp{kind: expired, rev: e.Kv.ModRevision}, h.last, now)
			continue
		}
		h.write(key, e.Kv, h.last, now)
	}
	h.last = now
}

// write must be called with mu held. The NodeID identifies a host, because it
// survives a change of address. The owner of a value without one is the address
// in it, or nothing.
func (h *history) write(key string, kv *mvccpb.KeyValue, call, end int64) {
	var value struct{ NodeID, PublicIP string }
	_ = json.Unmarshal(kv.Value, &value) // it may be bad, on purpose
	h.add(key, leaseOp{written, cmp.Or(value.NodeID, value.PublicIP), kv.ModRevision}, call, end)
}

// erase notes that the store is a new one.
func (h *history) erase() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for key := range h.ops {
		h.add(key, leaseOp{kind: erased}, h.last, h.now())
	}
	h.last = h.now()
}

// recordDaemon records the subnet that a daemon reports.
func (h *history) recordDaemon(ctx context.Context, n *faultHost) {
	if n.unrecorded.Load() {
		return
	}
	call := h.now()
	s, err := n.askStatus(ctx)
	if err != nil || !s.Ready || n.unrecorded.Load() {
		return // it does not run
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, subnet := range []netip.Prefix{s.Lease.Subnet, s.Lease.IPv6Subnet} {
		if subnet.IsValid() {
			h.add(strings.ReplaceAll(subnet.String(), "/", "-"), leaseOp{kind: reported, host: n.id}, call, h.now())
		}
	}
}

// check compares the record of every subnet with the model.
func (h *history) check() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return h.err
	}
	for key, ops := range h.ops {
		if result := porcupine.CheckOperationsTimeout(ownerModel, ops, patience); result != porcupine.Ok {
			return fmt.Errorf("the history of %s has more than one owner at a time (%s):\n%s", key, result, describe(ops))
		}
	}
	return nil
}

// describe leaves out repeated reports of one host.
func describe(ops []porcupine.Operation) string {
	var b strings.Builder
	var last leaseOp
	for _, o := range ops {
		if op := o.Input.(leaseOp); op != last {
			fmt.Fprintf(&b, "%v..%v %v\n", time.Duration(o.Call), time.Duration(o.Return), op)
			last = op
		}
	}
	return b.String()
}

func (h *history) size() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, ops := range h.ops {
		n += len(ops)
	}
	return n
}

// The model refuses each violation and accepts everything else.
func TestOwnerModel(t *testing.T) {
	const a, b = "1f", "2e"
	for _, c := range []struct {
		name string
		ops  []leaseOp
		ok   bool
	}{
		{"acquire, renew, expire, steal", []leaseOp{{written, a, 1}, {reported, a, 0}, {written, a, 2}, {expired, a, 3}, {reported, a, 0}, {written, b, 4}, {reported, b, 0}}, true},
		{"written over", []leaseOp{{written, a, 1}, {written, b, 2}}, false},
		{"two believe", []leaseOp{{written, a, 1}, {expired, a, 2}, {written, b, 3}, {reported, a, 0}}, false},
		{"never written", []leaseOp{{reported, a, 0}}, false},
		{"deleted twice", []leaseOp{{written, a, 1}, {expired, a, 2}, {expired, a, 3}}, false},
		{"moved to a key with another part", []leaseOp{{written, a, 1}, {expired, a, 2}, {written, a, 2}, {reported, a, 0}}, true},
		{"written twice at one revision", []leaseOp{{written, a, 1}, {written, a, 1}}, false},
		{"a new store", []leaseOp{{written, a, 7}, {kind: erased}, {reported, a, 0}, {written, a, 2}}, true},
	} {
		h := newHistory(nil)
		for i, op := range c.ops {
			h.add("key", op, int64(2*i), int64(2*i+1))
		}
		if err := h.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v, want ok=%v", c.name, err, c.ok)
		}
	}
}
