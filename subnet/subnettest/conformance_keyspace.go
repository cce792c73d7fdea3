package subnettest

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Keyspace tests a subnet.Keyspace against its contract, that of its Source
// included. Each test opens one over an empty store.
func Keyspace(t *testing.T, open func(t *testing.T) Harness) {
	Source(t, func(t *testing.T) SourceHarness { return open(t).source() })
	tests := map[string]func(*testing.T, Harness){
		"KeyspaceListLeavesOutBad":  testKeyspaceListLeavesOutBad,
		"Overlapping":               testOverlapping,
		"CreateRace":                testCreateRace,
		"CreateRoundTrip":           testCreateRoundTrip,
		"CreateOverReservation":     testCreateOverReservation,
		"NothingBadIsWritten":       testNothingBadIsWritten,
		"UpdateExtends":             testUpdateExtends,
		"UpdateAttrs":               testUpdateAttrs,
		"UpdateConflict":            testUpdateConflict,
		"UpdateRace":                testUpdateRace,
		"EqualRevision":             testEqualRevision,
		"Get":                       testGet,
		"UpdateReservation":         testUpdateReservation,
		"Expiry":                    testExpiry,
		"Delete":                    testDelete,
		"WatchQuietRenewal":         testWatchQuietRenewal,
		"KeyspaceWatchChangedAttrs": testKeyspaceWatchChangedAttrs,
		"KeyspaceWatchLeavesOutBad": testKeyspaceWatchLeavesOutBad,
	}
	for name := range (failures[Store]{}).tests() {
		tests["Keyspace"+name] = func(t *testing.T, h Harness) {
			failures[Store]{h.Store, h.Unreachable, h.Silent, h.Limit, func(s Store) calls { return keyspaceCalls(s) }}.tests()[name](t)
		}
	}
	run(t, open, tests)
}

func run(t *testing.T, open func(t *testing.T) Harness, tests map[string]func(*testing.T, Harness)) {
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			h := open(t)
			t.Cleanup(func() { h.Store.Close() })
			test(t, h)
		})
	}
}

func testKeyspaceListLeavesOutBad(t *testing.T, h Harness) {
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
	if n := h.Store.BadCount(); n != 4 {
		t.Errorf("BadCount = %d, want 4", n)
	}
	// The key of the bad value is occupied.
	_, err := h.Store.Create(t.Context(), host(11), longTTL)
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
			_, errs[i] = h.Store.Create(t.Context(), l, longTTL)
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
		if !ok || !listed.Attrs.Equal(want.Attrs) || listed.Rev != made.Rev || listed.Created != made.Created || made.Created != made.Rev || listed.Reserved {
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
	_, err := h.Store.Create(t.Context(), host(1), longTTL)
	wantErr(t, "Create over a reservation", err, subnet.ErrExists)
}

// testNothingBadIsWritten: another flannel may fail on a key or value that does
// not parse.
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
		if _, err := h.Store.Create(t.Context(), bad, longTTL); err == nil || subnet.IsAnswer(err) {
			t.Errorf("Create with bad %s: %v", name, err)
		}
		if _, err := h.Store.Update(t.Context(), bad, bad.Attrs, longTTL); err == nil || subnet.IsAnswer(err) {
			t.Errorf("Update with bad %s: %v", name, err)
		}
	}
	leases, _ := h.list(t)
	if len(leases) != 1 || leases[0].Rev != l.Rev || h.Store.BadCount() != 0 {
		t.Errorf("List = %v, bad: %d; want the good lease, untouched", leases, h.Store.BadCount())
	}
}

func testDelete(t *testing.T, h Harness) {
	l := h.create(t, host(1), longTTL)
	changed := vxlan(1, "c6:d2:32:6f:8f:44")
	changed, err := h.Store.Update(t.Context(), l, changed.Attrs, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	wantErr(t, "Delete of what was written since", h.Store.Delete(t.Context(), l), subnet.ErrConflict)
	wantErr(t, "Delete of what was never read", h.Store.Delete(t.Context(), host(1)), subnet.ErrConflict)
	wantErr(t, "Delete of what is not there", h.Store.Delete(t.Context(), host(2)), subnet.ErrConflict)
	if _, ok := h.find(t, l); !ok {
		t.Fatal("lease is gone")
	}
	if err := h.Store.Delete(t.Context(), changed); err != nil {
		t.Fatalf("Delete: %v", err)
	}
	if _, ok := h.find(t, l); ok {
		t.Fatal("lease is still there")
	}
	wantErr(t, "second Delete", h.Store.Delete(t.Context(), changed), subnet.ErrConflict)
}

func testWatchQuietRenewal(t *testing.T, h Harness) {
	l := h.create(t, vxlan(1, "c6:d2:32:6f:8f:44"), longTTL)
	_, at := h.list(t)
	w := h.watch(t, at)
	renewed, err := h.Store.Update(t.Context(), l, l.Attrs, longTTL)
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

func testKeyspaceWatchChangedAttrs(t *testing.T, h Harness) {
	l := h.create(t, vxlan(1, "c6:d2:32:6f:8f:44"), longTTL)
	_, at := h.list(t)
	w := h.watch(t, at)
	changed := vxlan(1, "c6:d2:32:6f:8f:45")
	changed, err := h.Store.Update(t.Context(), l, changed.Attrs, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	e := w.next()
	wantEvent(t, e, subnet.Added, changed)
	if e.Lease.Rev != changed.Rev {
		t.Errorf("event at revision %d, Update returned %d", e.Lease.Rev, changed.Rev)
	}
	// The same holds for another program's write.
	h.Put(l.Key(), []byte(`{"PublicIP":"192.0.2.7","Extra":[1]}`), 0)
	want := host(1)
	want.Attrs.PublicIP = host(7).Attrs.PublicIP
	e = w.next()
	wantEvent(t, e, subnet.Added, want)
	if !e.Lease.Reserved {
		t.Error("a key without a time limit is not marked as reserved")
	}
}

func testKeyspaceWatchLeavesOutBad(t *testing.T, h Harness) {
	_, at := h.list(t)
	w := h.watch(t, at)
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	wantEvent(t, w.next(), subnet.Added, host(1))
	h.Put("nonsense", []byte(`{"PublicIP":"192.0.2.9"}`), 0)
	h.Delete("nonsense")
	h.Put(host(1).Key(), []byte(`{`), 0)
	h.Put(host(2).Key(), []byte(`{"PublicIP":"192.0.2.2"}`), 0)
	// The good value of host 1 stays in force: no event until it is gone.
	wantEvent(t, w.next(), subnet.Added, host(2))
	if n := h.Store.BadCount(); n != 2 {
		t.Errorf("BadCount = %d, want 2", n)
	}
	h.Delete(host(1).Key())
	wantEvent(t, w.next(), subnet.Removed, host(1))
}
