package subnettest

import (
	"bytes"
	"context"
	"maps"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Source tests a subnet.Source against its contract. Each test opens one over an
// empty store.
func Source(t *testing.T, open func(t *testing.T) SourceHarness) {
	tests := map[string]func(*testing.T, SourceHarness){
		"Config":            testConfig,
		"ListEmpty":         testListEmpty,
		"ListOneRoundTrip":  testListOneRoundTrip,
		"ListLeavesOutBad":  testListLeavesOutBad,
		"WatchOrder":        testWatchOrder,
		"WatchAccepted":     testWatchAccepted,
		"WatchResume":       testWatchResume,
		"WatchFromList":     testWatchFromList,
		"WatchChangedAttrs": testWatchChangedAttrs,
		"WatchLeavesOutBad": testWatchLeavesOutBad,
		"WatchCompacted":    testWatchCompacted,
		"WatchEndsWithCtx":  testWatchEndsWithCtx,
		"WatchSerial":       testWatchSerial,
		"WatchClosed":       testWatchClosed,
	}
	for name := range (failures[subnet.Source]{}).tests() {
		tests[name] = func(t *testing.T, h SourceHarness) {
			failures[subnet.Source]{h.Source, h.Unreachable, h.Silent, h.Limit, sourceCalls}.tests()[name](t)
		}
	}
	for name, test := range maps.All(tests) {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			t.Cleanup(func() { h.Source.Close() })
			test(t, h)
		})
	}
}

func testConfig(t *testing.T, h SourceHarness) {
	_, err := h.Source.Config(t.Context())
	wantErr(t, "Config of an empty store", err, subnet.ErrNoConfig)

	want := []byte(`{"Network": "10.5.0.0/16" }`)
	h.SetConfig(want)
	got, err := h.Source.Config(t.Context())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Config = %q, %v; want %q", got, err, want)
	}
}

func testListEmpty(t *testing.T, h SourceHarness) {
	if leases, _ := list(t, h.Source); len(leases) != 0 {
		t.Fatalf("List of an empty store = %v", leases)
	}
	h.Put(host(1))
	h.Remove(host(1))
	if leases, _ := list(t, h.Source); len(leases) != 0 {
		t.Fatalf("List of a store that became empty = %v", leases)
	}
}

func testListOneRoundTrip(t *testing.T, h SourceHarness) {
	for n := byte(1); n <= 20; n++ {
		h.Put(host(n))
	}
	list(t, h.Source) // connects and logs in
	before := h.Requests()
	leases, _ := list(t, h.Source)
	if n := h.Requests() - before; n != 1 {
		t.Errorf("List took %d round trips", n)
	}
	if len(leases) != 20 {
		t.Errorf("List = %d leases, want 20", len(leases))
	}
}

func testWatchOrder(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	h.SetConfig([]byte("{}")) // a change outside of the leases: no event
	for n := byte(1); n <= 10; n++ {
		h.Put(host(n))
		if n%2 == 0 {
			h.Remove(host(n))
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

// testWatchAccepted: the acceptance of a watch is delivered without a change.
func testWatchAccepted(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	select {
	case d := <-w.delivered:
		if d.rev != at.Rev || len(d.events) > 0 {
			t.Errorf("Watch delivered %v at revision %d, want nothing at %d", d.events, d.rev, at.Rev)
		}
	case err := <-w.ended:
		t.Errorf("Watch ended: %v", err)
	case <-time.After(patience):
		t.Error("a watch without events delivers nothing")
	}
}

// testWatchResume: a watch that resumes at the last revision of another delivers
// every event in between once.
func testWatchResume(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	h.Put(host(1))
	wantEvent(t, w.next(), subnet.Added, host(1))
	w.cancel()
	wantErr(t, "Watch", w.end(), context.Canceled)

	h.Put(host(2))
	h.Remove(host(2))
	h.Put(host(3))

	w = startWatch(t, h.Source, subnet.Position{Rev: w.rev})
	wantEvent(t, w.next(), subnet.Added, host(2))
	wantEvent(t, w.next(), subnet.Removed, host(2))
	wantEvent(t, w.next(), subnet.Added, host(3))
}

// testWatchFromList: a watch from List's revision delivers what List does not
// contain.
func testWatchFromList(t *testing.T, h SourceHarness) {
	h.Put(host(1))
	leases, at := list(t, h.Source)
	if len(leases) != 1 {
		t.Fatalf("List = %v", leases)
	}
	h.Put(host(2))
	w := startWatch(t, h.Source, at)
	wantEvent(t, w.next(), subnet.Added, host(2))
}

func testWatchCompacted(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	h.Put(host(1))
	h.Put(host(2))
	h.Forget()
	err := startWatch(t, h.Source, at).end()
	wantErr(t, "Watch of forgotten history", err, subnet.ErrCompacted)
	// A new List continues.
	leases, at := list(t, h.Source)
	if len(leases) != 2 {
		t.Fatalf("List = %v", leases)
	}
	w := startWatch(t, h.Source, at)
	h.Put(host(3))
	wantEvent(t, w.next(), subnet.Added, host(3))
}

func testWatchEndsWithCtx(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	h.Put(host(1))
	wantEvent(t, w.next(), subnet.Added, host(1))
	w.cancel()
	wantErr(t, "Watch", w.end(), context.Canceled)
}

// testWatchSerial: calls do not overlap, even if one is slow, and none follows the
// return (startWatch checks that in every test).
func testWatchSerial(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var inside atomic.Int32
	entered, leave := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- h.Source.Watch(ctx, at, func(_ subnet.Rev, events []subnet.Event) {
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
	h.Put(host(1))
	<-entered
	h.Put(host(2))
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

// testListLeavesOutBad: a value that does not parse is left out and counted.
func testListLeavesOutBad(t *testing.T, h SourceHarness) {
	h.Put(host(1))
	h.Put(host(2))
	h.Corrupt(host(2))
	if leases, _ := list(t, h.Source); len(leases) != 1 || leases[0].Subnet != host(1).Subnet {
		t.Errorf("List = %v, want the one good lease", leases)
	}
	if n := h.Source.BadCount(); n != 1 {
		t.Errorf("BadCount = %d, want 1", n)
	}
}

func testWatchChangedAttrs(t *testing.T, h SourceHarness) {
	h.Put(vxlan(1, "c6:d2:32:6f:8f:44"))
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	changed := vxlan(1, "c6:d2:32:6f:8f:45")
	h.Put(changed)
	wantEvent(t, w.next(), subnet.Added, changed)
}

// testWatchLeavesOutBad: the good value of host 1 stays in force, without an
// event, until the lease is removed.
func testWatchLeavesOutBad(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	h.Put(host(1))
	wantEvent(t, w.next(), subnet.Added, host(1))
	h.Corrupt(host(1))
	h.Put(host(2))
	wantEvent(t, w.next(), subnet.Added, host(2))
	if n := h.Source.BadCount(); n != 1 {
		t.Errorf("BadCount = %d, want 1", n)
	}
	h.Remove(host(1))
	wantEvent(t, w.next(), subnet.Removed, host(1))
}

func testWatchClosed(t *testing.T, h SourceHarness) {
	_, at := list(t, h.Source)
	w := startWatch(t, h.Source, at)
	h.Put(host(1))
	w.next() // the watch is in progress
	if err := h.Source.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := w.end(); subnet.IsAnswer(err) {
		t.Errorf("Close: Watch in progress returned %v", err)
	}
}
