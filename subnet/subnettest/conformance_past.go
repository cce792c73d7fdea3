package subnettest

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// past asks for all that the store tells up to now, until that names want.
func (h Harness) past(t *testing.T, want ...subnet.Lease) []netip.Prefix {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		leases, rev := h.list(t)
		found, err := h.Registry.Past(t.Context(), rev, leases)
		if err == nil && !slices.ContainsFunc(want, func(l subnet.Lease) bool { return !slices.Contains(found, l.Subnet) }) {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("Past = %v, %v; want it to name %v", found, err, want)
		}
	}
}

// testPast: leases that were deleted or have expired are told of, under whatever
// changes came after; what is not a lease key is not.
func testPast(t *testing.T, h Harness) {
	if found := h.past(t); len(found) > 0 {
		t.Fatalf("Past of an empty store = %v", found)
	}
	h.SetConfig([]byte(`{"Network":"10.5.0.0/16"}`))
	deleted := h.create(t, host(1), longTTL)
	h.Put("nonsense", []byte(`{"PublicIP":"192.0.2.9"}`), 0)
	if err := h.Registry.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	h.create(t, host(2), shortTTL)
	h.Put(host(3).Key(), []byte(`{"PublicIP":"192.0.2.3"}`), 0)
	h.Delete(host(3).Key())
	_, rev := h.list(t)
	w := h.watch(t, rev)
	h.create(t, host(4), longTTL)
	wantEvent(t, w.next(), subnet.Added, host(4))
	wantEvent(t, w.next(), subnet.Removed, host(2))
	h.SetConfig([]byte(`{"Network":"10.6.0.0/16"}`))
	for _, p := range h.past(t, host(1), host(2), host(3)) {
		if p.Addr().As4()[2] > 4 || p.Bits() != 24 {
			t.Errorf("Past names %v, which nobody had", p)
		}
	}
}

// testPastForgotten: a store that has forgotten what was tells what has been
// since, and that is no error.
func testPastForgotten(t *testing.T, h Harness) {
	h.create(t, host(1), longTTL)
	h.Delete(host(1).Key())
	h.create(t, host(2), longTTL)
	h.Forget()
	h.past(t)
	h.Delete(host(2).Key())
	h.create(t, host(3), longTTL)
	h.past(t, host(2))
}
