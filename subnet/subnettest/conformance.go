package subnettest

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Conformance holds a registry to the words of subnet.Registry. Each of its
// tests opens a registry over an empty store.
func Conformance(t *testing.T, open func(t *testing.T) Harness) {
	for name, test := range map[string]func(*testing.T, Harness){
		"Config":                testConfig,
		"PublishConfig":         testPublishConfig,
		"ReplaceConfig":         testReplaceConfig,
		"Reserve":               testReserve,
		"ListEmpty":             testListEmpty,
		"ListOneRoundTrip":      testListOneRoundTrip,
		"ListLeavesOutBad":      testListLeavesOutBad,
		"Overlapping":           testOverlapping,
		"Past":                  testPast,
		"PastForgotten":         testPastForgotten,
		"CreateRace":            testCreateRace,
		"CreateRoundTrip":       testCreateRoundTrip,
		"CreateOverReservation": testCreateOverReservation,
		"NothingBadIsWritten":   testNothingBadIsWritten,
		"UpdateExtends":         testUpdateExtends,
		"UpdateAttrs":           testUpdateAttrs,
		"UpdateLost":            testUpdateLost,
		"UpdateRace":            testUpdateRace,
		"UpdateReservation":     testUpdateReservation,
		"Expiry":                testExpiry,
		"Delete":                testDelete,
		"Closed":                testClosed,
		"Ctx":                   testCtx,
		"Unreachable":           testUnreachable,
		"Silent":                testSilent,
		"WatchOrder":            testWatchOrder,
		"WatchTakenUp":          testWatchTakenUp,
		"WatchResume":           testWatchResume,
		"WatchFromList":         testWatchFromList,
		"WatchQuietRenewal":     testWatchQuietRenewal,
		"WatchChangedAttrs":     testWatchChangedAttrs,
		"WatchLeavesOutBad":     testWatchLeavesOutBad,
		"WatchCompacted":        testWatchCompacted,
		"WatchEndsWithCtx":      testWatchEndsWithCtx,
		"WatchSerial":           testWatchSerial,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			t.Cleanup(func() { h.Registry.Close() })
			test(t, h)
		})
	}
}

func testConfig(t *testing.T, h Harness) {
	_, err := h.Registry.Config(t.Context())
	wantErr(t, "Config of an empty store", err, subnet.ErrNoConfig)

	want := []byte(`{"Network": "10.5.0.0/16" }`)
	h.SetConfig(want)
	got, err := h.Registry.Config(t.Context())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("Config = %q, %v; want %q", got, err, want)
	}
}

func testPublishConfig(t *testing.T, h Harness) {
	first, second := []byte(`{"Network":"10.5.0.0/16"}`), []byte(`{"Network":"10.6.0.0/16"}`)
	if written, err := h.Registry.PublishConfig(t.Context(), first); !written || err != nil {
		t.Fatalf("PublishConfig to an empty store = %v, %v", written, err)
	}
	if written, err := h.Registry.PublishConfig(t.Context(), second); written || err != nil {
		t.Fatalf("PublishConfig over another = %v, %v", written, err)
	}
	if got, err := h.Registry.Config(t.Context()); err != nil || !bytes.Equal(got, first) {
		t.Fatalf("Config = %q, %v; want the first one", got, err)
	}
}

func testListEmpty(t *testing.T, h Harness) {
	if leases, _ := h.list(t); len(leases) != 0 {
		t.Fatalf("List of an empty store = %v", leases)
	}
	l := h.create(t, host(1), longTTL)
	if err := h.Registry.Delete(t.Context(), l); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if leases, _ := h.list(t); len(leases) != 0 {
		t.Fatalf("List of a store that became empty = %v", leases)
	}
}

func testListOneRoundTrip(t *testing.T, h Harness) {
	for n := byte(1); n <= 20; n++ {
		h.create(t, host(n), longTTL)
	}
	before := h.Requests()
	leases, _ := h.list(t)
	if n := h.Requests() - before; n != 1 {
		t.Errorf("List took %d round trips", n)
	}
	if len(leases) != 20 {
		t.Errorf("List = %d leases, want 20", len(leases))
	}
}

func testListLeavesOutBad(t *testing.T, h Harness) {
	h.create(t, host(1), longTTL)
	good := []byte(`{"PublicIP":"192.0.2.9"}`)
	h.Put("10.5.9.0_24", good, 0)
	h.Put("10.5.10.1-24", good, 0)
	h.Put("10.5.11.0-24", []byte(`{"PublicIP":`), 0)
	h.Put("10.5.12.0-24", []byte(`{"PublicIP":"0.0.0.0"}`), 0)
	leases, _ := h.list(t)
	if len(leases) != 1 || leases[0].Subnet != host(1).Subnet {
		t.Errorf("List = %v, want the one good lease", leases)
	}
	if n := h.BadCount(); n != 4 {
		t.Errorf("BadCount = %d, want 4", n)
	}
	// The bad value's key is taken all the same.
	_, err := h.Registry.Create(t.Context(), host(11), longTTL)
	wantErr(t, "Create over a key with a bad value", err, subnet.ErrExists)
}

func testCreateRace(t *testing.T, h Harness) {
	const hosts = 8
	errs := make([]error, hosts)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			l := host(1)
			l.Attrs.PublicIP = host(byte(i)).Attrs.PublicIP
			_, errs[i] = h.Registry.Create(t.Context(), l, longTTL)
		})
	}
	wg.Wait()
	winner := -1
	for i, err := range errs {
		switch {
		case err == nil && winner >= 0:
			t.Errorf("hosts %d and %d both created the lease", winner, i)
		case err == nil:
			winner = i
		case !errors.Is(err, subnet.ErrExists):
			t.Errorf("host %d: %v, want ErrExists", i, err)
		}
	}
	if winner < 0 {
		t.Fatal("nobody created the lease")
	}
	if l, _ := h.find(t, host(1)); l.Attrs.PublicIP != host(byte(winner)).Attrs.PublicIP {
		t.Errorf("lease is %v, want that of the winner, %d", l, winner)
	}
}

func testCreateRoundTrip(t *testing.T, h Harness) {
	for _, want := range []subnet.Lease{host(1), vxlan(2, "c6:d2:32:6f:8f:44")} {
		before := time.Now()
		made := h.create(t, want, longTTL)
		if !made.Attrs.Equal(want.Attrs) || made.Reserved || made.Rev <= 0 {
			t.Errorf("Create = %+v", made)
		}
		if made.Expiration.Before(before.Add(longTTL)) || made.Expiration.After(time.Now().Add(longTTL)) {
			t.Errorf("Create: Expiration is %v, want %v from when it was called", made.Expiration, longTTL)
		}
		listed, ok := h.find(t, want)
		if !ok || !listed.Attrs.Equal(want.Attrs) || listed.Rev != made.Rev || listed.Reserved {
			t.Errorf("List = %+v, want what Create returned, %+v", listed, made)
		}
		if listed.Expiration.After(made.Expiration) {
			t.Errorf("List: Expiration %v is after %v", listed.Expiration, made.Expiration)
		}
		if _, hasTTL := h.Get(want.Key()); !hasTTL {
			t.Error("the store will never delete the key")
		}
	}
}

func testCreateOverReservation(t *testing.T, h Harness) {
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	_, err := h.Registry.Create(t.Context(), host(1), longTTL)
	wantErr(t, "Create over a reservation", err, subnet.ErrExists)
}

// testNothingBadIsWritten: other hosts' flannel may choke on a key or a value
// that is none.
func testNothingBadIsWritten(t *testing.T, h Harness) {
	l := h.create(t, host(1), longTTL)
	badData := vxlan(1, "c6:d2:32:6f:8f:44")
	badData.Attrs.BackendData = []byte("{")
	badData.Rev = l.Rev
	badIP := host(1)
	badIP.Attrs.PublicIP = netip.Addr{}
	badIP.Rev = l.Rev
	badSubnet := host(2)
	badSubnet.Subnet = netip.PrefixFrom(netip.MustParseAddr("10.5.2.1"), 24)
	for name, bad := range map[string]subnet.Lease{"backend data": badData, "public IP": badIP, "subnet": badSubnet, "nothing": {}} {
		if _, err := h.Registry.Create(t.Context(), bad, longTTL); err == nil || isAnswer(err) {
			t.Errorf("Create with bad %s: %v", name, err)
		}
		if _, err := h.Registry.Update(t.Context(), bad, longTTL); err == nil || isAnswer(err) {
			t.Errorf("Update with bad %s: %v", name, err)
		}
	}
	leases, _ := h.list(t)
	if len(leases) != 1 || leases[0].Rev != l.Rev || h.BadCount() != 0 {
		t.Errorf("List = %v, bad: %d; want the good lease, untouched", leases, h.BadCount())
	}
}

func testDelete(t *testing.T, h Harness) {
	l := h.create(t, host(1), longTTL)
	changed := vxlan(1, "c6:d2:32:6f:8f:44")
	changed.Rev = l.Rev
	changed, err := h.Registry.Update(t.Context(), changed, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	wantErr(t, "Delete of what was written since", h.Registry.Delete(t.Context(), l), subnet.ErrLost)
	wantErr(t, "Delete of what was never read", h.Registry.Delete(t.Context(), host(1)), subnet.ErrLost)
	wantErr(t, "Delete of what is not there", h.Registry.Delete(t.Context(), host(2)), subnet.ErrLost)
	if _, ok := h.find(t, l); !ok {
		t.Fatal("lease is gone")
	}
	if err := h.Registry.Delete(t.Context(), changed); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if _, ok := h.find(t, l); ok {
		t.Fatal("lease is still there")
	}
	wantErr(t, "second Delete", h.Registry.Delete(t.Context(), changed), subnet.ErrLost)
}

// calls are all methods but Close, each with what it needs to succeed.
func calls(r subnet.Registry) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"Config":        func(ctx context.Context) error { _, err := r.Config(ctx); return err },
		"PublishConfig": func(ctx context.Context) error { _, err := r.PublishConfig(ctx, []byte("{}")); return err },
		"ReplaceConfig": func(ctx context.Context) error { return r.ReplaceConfig(ctx, []byte("{}"), []byte("{ }")) },
		"Reserve":       func(ctx context.Context) error { _, err := r.Reserve(ctx, host(1)); return err },
		"List":          func(ctx context.Context) error { _, _, err := r.List(ctx); return err },
		"Overlapping":   func(ctx context.Context) error { _, err := r.Overlapping(ctx, host(1).Subnet); return err },
		"Past":          func(ctx context.Context) error { _, err := r.Past(ctx, 100, nil); return err },
		"Create":        func(ctx context.Context) error { _, err := r.Create(ctx, host(1), longTTL); return err },
		"Update": func(ctx context.Context) error {
			l := host(1)
			l.Rev = 1
			_, err := r.Update(ctx, l, longTTL)
			return err
		},
		"Delete": func(ctx context.Context) error {
			l := host(1)
			l.Rev = 1
			return r.Delete(ctx, l)
		},
		"Watch": func(ctx context.Context) error { return r.Watch(ctx, 1, func(subnet.Rev, []subnet.Event) {}) },
	}
}

// isAnswer reports whether err says that the store has spoken.
func isAnswer(err error) bool {
	for _, answer := range []error{nil, subnet.ErrNoConfig, subnet.ErrExists, subnet.ErrLost, subnet.ErrCompacted} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return false
}

func testClosed(t *testing.T, h Harness) {
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.create(t, host(1), longTTL)
	w.next() // so that it is under way
	if err := h.Registry.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := w.end(); isAnswer(err) {
		t.Errorf("Close: Watch under way returned %v", err)
	}
	for name, call := range calls(h.Registry) {
		if err := call(t.Context()); isAnswer(err) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := h.Registry.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
}

func testCtx(t *testing.T, h Harness) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, call := range calls(h.Registry) {
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context: %v", name, err)
		}
	}
}

func testUnreachable(t *testing.T, h Harness) {
	r := h.Unreachable(t)
	t.Cleanup(func() { r.Close() })
	wantFailures(t, r)
}

// testSilent also ends each call by its context, and one by Close.
func testSilent(t *testing.T, h Harness) {
	if h.Limit > 0 {
		r := h.Silent(t)
		t.Cleanup(func() { r.Close() })
		wantFailures(t, r)
	}
	r := h.Silent(t)
	t.Cleanup(func() { r.Close() })
	for name, call := range calls(r) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(h.Limit/10, cancel)
		if err := call(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s, cancelled while it waits: %v", name, err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- calls(r)["List"](t.Context()) }()
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	select {
	case err := <-ended:
		if isAnswer(err) {
			t.Errorf("List, under way at Close: %v", err)
		}
	case <-time.After(patience):
		t.Error("List did not return after Close")
	}
}

// wantFailures checks that each call ends by itself, with an error that is not
// an answer.
func wantFailures(t *testing.T, r subnet.Registry) {
	t.Helper()
	for name, call := range calls(r) {
		ended := make(chan error, 1)
		go func() { ended <- call(t.Context()) }()
		select {
		case err := <-ended:
			if isAnswer(err) {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(patience):
			t.Errorf("%s hangs", name)
		}
	}
}
