package subnettest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

func testUpdateExtends(t *testing.T, h Harness) {
	l := h.create(t, host(1), shortTTL)
	before := time.Now()
	renewed, err := h.Store.Update(t.Context(), l, l.Attrs, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	if renewed.Expiration.Before(before.Add(longTTL)) || renewed.Expiration.After(time.Now().Add(longTTL)) {
		t.Errorf("Update: Expiration is %v, want %v from when it was called", renewed.Expiration, longTTL)
	}
	if renewed.Reserved || !renewed.Attrs.Equal(l.Attrs) {
		t.Errorf("Update = %+v", renewed)
	}
	// A second lease with the old TTL shows when that is over.
	_, at := h.list(t)
	w := h.watch(t, at)
	h.create(t, host(2), shortTTL)
	wantEvent(t, w.next(), subnet.Added, host(2))
	wantEvent(t, w.next(), subnet.Removed, host(2))
	if listed, ok := h.find(t, l); !ok || listed.Rev != renewed.Rev {
		t.Errorf("after the first term, the lease is %+v, want it at revision %d", listed, renewed.Rev)
	}
	// The next Update starts from the revision that this one returned.
	if _, err := h.Store.Update(t.Context(), renewed, renewed.Attrs, longTTL); err != nil {
		t.Errorf("Update of what Update returned: %v", err)
	}
}

func testUpdateAttrs(t *testing.T, h Harness) {
	l := h.create(t, vxlan(1, "c6:d2:32:6f:8f:44"), longTTL)
	changed := vxlan(1, "c6:d2:32:6f:8f:45")
	renewed, err := h.Store.Update(t.Context(), l, changed.Attrs, longTTL)
	if err != nil {
		t.Fatalf("Update: %v", err)
	}
	listed, ok := h.find(t, l)
	if !ok || !listed.Attrs.Equal(changed.Attrs) || listed.Rev != renewed.Rev || listed.Rev <= l.Rev {
		t.Errorf("List = %+v, want %+v", listed, renewed)
	}
	if listed.Created != l.Created || renewed.Created != l.Created {
		t.Errorf("List has the lease as created at %d, Update returned %d; want that of Create, %d", listed.Created, renewed.Created, l.Created)
	}
	if _, hasTTL := h.Get(l.Key()); !hasTTL {
		t.Error("the store will never delete the key")
	}
}

func testUpdateConflict(t *testing.T, h Harness) {
	gone := h.create(t, host(1), longTTL)
	h.Delete(gone.Key())
	_, err := h.Store.Update(t.Context(), gone, gone.Attrs, longTTL)
	wantErr(t, "Update of a deleted lease", err, subnet.ErrConflict)
	if v, _ := h.Get(gone.Key()); v != nil {
		t.Errorf("Update wrote %s over a deletion", v)
	}

	taken := h.create(t, host(2), longTTL)
	other := `{"PublicIP":"192.0.2.99"}`
	h.Put(taken.Key(), []byte(other), longTTL)
	_, err = h.Store.Update(t.Context(), taken, taken.Attrs, longTTL)
	wantErr(t, "Update of a lease taken by another host", err, subnet.ErrConflict)
	if v, _ := h.Get(taken.Key()); string(v) != other {
		t.Errorf("Update wrote %s over another host's lease", v)
	}

	_, err = h.Store.Update(t.Context(), host(3), host(3).Attrs, longTTL)
	wantErr(t, "Update of what was never there", err, subnet.ErrConflict)
	if v, _ := h.Get(host(3).Key()); v != nil {
		t.Errorf("Update created %s", v)
	}
}

// testEqualRevision: in another history, another host's key may have the revision
// of our last write. It is not ours to write or delete.
func testEqualRevision(t *testing.T, h Harness) {
	theirs := h.create(t, host(1), longTTL)
	ours := theirs
	ours.Attrs.PublicIP = host(2).Attrs.PublicIP
	_, err := h.Store.Update(t.Context(), ours, ours.Attrs, longTTL)
	wantErr(t, "Update of another host's lease at the same revision", err, subnet.ErrConflict)
	wantErr(t, "Delete of another host's lease at the same revision", h.Store.Delete(t.Context(), ours), subnet.ErrConflict)
	if got, ok := h.find(t, theirs); !ok || !got.StoredAs(theirs) {
		t.Errorf("the other host's lease became %+v, %v", got, ok)
	}
}

// testGet returns a lease as List does.
func testGet(t *testing.T, h Harness) {
	made := h.create(t, host(1), longTTL)
	got, err := h.Store.Get(t.Context(), host(1))
	if err != nil || !got.StoredAs(made) || got.Created != made.Created || got.Reserved {
		t.Errorf("Get = %+v, %v; want %+v", got, err, made)
	}
	_, err = h.Store.Get(t.Context(), host(2))
	wantErr(t, "Get of what is not there", err, subnet.ErrConflict)
	h.Put(host(1).Key(), []byte("{"), 0)
	_, err = h.Store.Get(t.Context(), host(1))
	wantErr(t, "Get of a bad value", err, subnet.ErrUnreadable)
}

// testUpdateRace: one of several writers with the same revision succeeds.
func testUpdateRace(t *testing.T, h Harness) {
	l := h.create(t, host(1), longTTL)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			mine := l.Attrs
			mine.PublicIP = host(byte(100 + i)).Attrs.PublicIP
			_, errs[i] = h.Store.Update(t.Context(), l, mine, longTTL)
		})
	}
	wg.Wait()
	winners := 0
	for i, err := range errs {
		switch {
		case err == nil:
			winners++
			if got, _ := h.find(t, l); got.Attrs.PublicIP != host(byte(100+i)).Attrs.PublicIP {
				t.Errorf("lease is %v, want that of the winner, %d", got, i)
			}
		case !errors.Is(err, subnet.ErrConflict):
			t.Errorf("writer %d: %v, want ErrConflict", i, err)
		}
	}
	if winners != 1 {
		t.Errorf("%d writers won", winners)
	}
}

func testUpdateReservation(t *testing.T, h Harness) {
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	l, ok := h.find(t, host(1))
	if !ok || !l.Reserved || !l.Expiration.IsZero() {
		t.Fatalf("List: reservation is %+v", l)
	}
	// It stays without a TTL, with the same and with other attributes.
	for _, attrs := range []subnet.Attrs{l.Attrs, vxlan(1, "c6:d2:32:6f:8f:44").Attrs} {
		taken, err := h.Store.Update(t.Context(), l, attrs, longTTL)
		if err != nil {
			t.Fatalf("Update: %v", err)
		}
		if !taken.Reserved || !taken.Expiration.IsZero() || !taken.Attrs.Equal(attrs) {
			t.Errorf("Update = %+v, want a reservation with %+v", taken, attrs)
		}
		if v, hasTTL := h.Get(l.Key()); v == nil || hasTTL {
			t.Errorf("in the store: %s, time limit: %v", v, hasTTL)
		}
		l = taken
	}
	// The same holds if the caller has it as a lease.
	l.Reserved = false
	if taken, err := h.Store.Update(t.Context(), l, l.Attrs, longTTL); err != nil || !taken.Reserved {
		t.Errorf("Update of a reservation, taken for a lease = %+v, %v", taken, err)
	}
	if v, hasTTL := h.Get(l.Key()); v == nil || hasTTL {
		t.Errorf("in the store: %s, time limit: %v", v, hasTTL)
	}
}

func testExpiry(t *testing.T, h Harness) {
	_, at := h.list(t)
	w := h.watch(t, at)
	l := h.create(t, host(1), shortTTL)
	e := w.next()
	wantEvent(t, e, subnet.Added, l)
	if e.Lease.Rev != l.Rev || e.Lease.Reserved {
		t.Errorf("Added lease is %+v, want %+v", e.Lease, l)
	}
	e = w.next()
	wantEvent(t, e, subnet.Removed, l)
	if now := time.Now(); now.Before(l.Expiration) {
		t.Errorf("removed at %v, before its expiration at %v", now, l.Expiration)
	}
	if (e.Lease.Attrs.PublicIP.IsValid()) || e.Lease.Rev <= l.Rev || e.Lease.Rev != w.rev {
		t.Errorf("Removed lease is %+v, want its subnet and a later revision only", e.Lease)
	}
	if _, ok := h.find(t, l); ok {
		t.Error("List shows an expired lease")
	}
	_, err := h.Store.Update(t.Context(), l, l.Attrs, longTTL)
	wantErr(t, "Update of an expired lease", err, subnet.ErrConflict)
}
