package subnettest

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

func testWatchOrder(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.SetConfig([]byte("{}")) // a change outside of the leases: no event
	for n := byte(1); n <= 10; n++ {
		l := h.create(t, host(n), longTTL)
		if n%2 == 0 {
			h.Delete(l.Key())
		}
	}
	last := subnet.Rev(0)
	for n := byte(1); n <= 10; n++ {
		want := []subnet.EventType{subnet.Added}
		if n%2 == 0 {
			want = append(want, subnet.Removed)
		}
		for _, typ := range want {
			e := w.next()
			wantEvent(t, e, typ, host(n))
			if e.Lease.Rev <= last || e.Lease.Rev > w.rev {
				t.Fatalf("event at revision %d after one at %d, delivered as %d", e.Lease.Rev, last, w.rev)
			}
			last = e.Lease.Rev
		}
	}
}

// testWatchTakenUp: that the store listens is known without a change.
func testWatchTakenUp(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	select {
	case d := <-w.delivered:
		if d.rev != rev || len(d.events) > 0 {
			t.Errorf("Watch delivered %v at revision %d, want nothing at %d", d.events, d.rev, rev)
		}
	case err := <-w.ended:
		t.Errorf("Watch ended: %v", err)
	case <-time.After(patience):
		t.Error("a watch that nothing happens in tells nothing")
	}
}

// testWatchResume: nothing is lost, and nothing comes twice, between the end of
// a watch and one that resumes at its last revision.
func testWatchResume(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.create(t, host(1), longTTL)
	wantEvent(t, w.next(), subnet.Added, host(1))
	w.cancel()
	wantErr(t, "Watch", w.end(), context.Canceled)

	l := h.create(t, host(2), longTTL)
	h.Delete(l.Key())
	h.create(t, host(3), longTTL)

	w = h.watch(t, w.rev)
	wantEvent(t, w.next(), subnet.Added, host(2))
	wantEvent(t, w.next(), subnet.Removed, host(2))
	wantEvent(t, w.next(), subnet.Added, host(3))
}

// testWatchFromList: the revision of List is that of what it contains.
func testWatchFromList(t *testing.T, h Harness) {
	h.create(t, host(1), longTTL)
	leases, rev := h.list(t)
	if len(leases) != 1 {
		t.Fatalf("List = %v", leases)
	}
	h.create(t, host(2), longTTL)
	w := h.watch(t, rev)
	wantEvent(t, w.next(), subnet.Added, host(2))
}

func testWatchQuietRenewal(t *testing.T, h Harness) {
	l := h.create(t, vxlan(1, "c6:d2:32:6f:8f:44"), longTTL)
	_, rev := h.list(t)
	w := h.watch(t, rev)
	renewed, err := h.Registry.Update(t.Context(), l, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	h.create(t, host(2), longTTL)
	if !h.QuietRenewal {
		wantEvent(t, w.next(), subnet.Added, l)
	} else if renewed.Rev != l.Rev {
		t.Errorf("renewal wrote to the key: revision %d after %d", renewed.Rev, l.Rev)
	}
	wantEvent(t, w.next(), subnet.Added, host(2))
}

func testWatchChangedAttrs(t *testing.T, h Harness) {
	l := h.create(t, vxlan(1, "c6:d2:32:6f:8f:44"), longTTL)
	_, rev := h.list(t)
	w := h.watch(t, rev)
	changed := vxlan(1, "c6:d2:32:6f:8f:45")
	changed.Rev = l.Rev
	changed, err := h.Registry.Update(t.Context(), changed, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	e := w.next()
	wantEvent(t, e, subnet.Added, changed)
	if e.Lease.Rev != changed.Rev {
		t.Errorf("event at revision %d, Update returned %d", e.Lease.Rev, changed.Rev)
	}
	// Another program's write, too.
	h.Put(l.Key(), []byte(`{"PublicIP":"192.0.2.7","Extra":[1]}`), 0)
	want := host(1)
	want.Attrs.PublicIP = host(7).Attrs.PublicIP
	e = w.next()
	wantEvent(t, e, subnet.Added, want)
	if !e.Lease.Reserved {
		t.Error("a key without a time limit is not marked as reserved")
	}
}

func testWatchLeavesOutBad(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	wantEvent(t, w.next(), subnet.Added, host(1))
	h.Put("nonsense", []byte(`{"PublicIP":"192.0.2.9"}`), 0)
	h.Delete("nonsense")
	h.Put(host(1).Key(), []byte(`{`), 0)
	h.Put(host(2).Key(), []byte(`{"PublicIP":"192.0.2.2"}`), 0)
	// The good value of host 1 stays in force: no event until it is gone.
	wantEvent(t, w.next(), subnet.Added, host(2))
	if n := h.BadCount(); n != 2 {
		t.Errorf("BadCount = %d, want 2", n)
	}
	h.Delete(host(1).Key())
	wantEvent(t, w.next(), subnet.Removed, host(1))
}

func testWatchCompacted(t *testing.T, h Harness) {
	_, rev := h.list(t)
	h.create(t, host(1), longTTL)
	h.create(t, host(2), longTTL)
	h.Forget()
	err := h.watch(t, rev).end()
	wantErr(t, "Watch of forgotten history", err, subnet.ErrCompacted)
	// Listing again is the way out.
	leases, rev := h.list(t)
	if len(leases) != 2 {
		t.Fatalf("List = %v", leases)
	}
	w := h.watch(t, rev)
	h.create(t, host(3), longTTL)
	wantEvent(t, w.next(), subnet.Added, host(3))
}

func testWatchEndsWithCtx(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.create(t, host(1), longTTL)
	wantEvent(t, w.next(), subnet.Added, host(1))
	w.cancel()
	wantErr(t, "Watch", w.end(), context.Canceled)
}

// testWatchSerial: one call at a time, in spite of a slow callee, and none
// after the return (which the watch helper checks for every test).
func testWatchSerial(t *testing.T, h Harness) {
	_, rev := h.list(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var inside atomic.Int32
	entered, leave := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- h.Registry.Watch(ctx, rev, func(_ subnet.Rev, events []subnet.Event) {
			if inside.Add(1) != 1 {
				t.Error("two calls at a time")
			}
			defer inside.Add(-1)
			if len(events) > 0 {
				entered <- struct{}{}
				<-leave
			}
		})
	}()
	h.create(t, host(1), longTTL)
	<-entered
	h.create(t, host(2), longTTL)
	cancel() // within a call: Watch must not return before that call does
	select {
	case err := <-ended:
		t.Fatalf("Watch returned %v from within a call", err)
	default:
	}
	close(leave)
	for {
		select {
		case <-entered:
		case err := <-ended:
			wantErr(t, "Watch", err, context.Canceled)
			return
		}
	}
}
