package subnettest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/coreos/flannel/subnet"
)

// Admin tests a subnet.Admin against its contract. Each test opens one over an
// empty store.
func Admin(t *testing.T, open func(t *testing.T) Harness) {
	tests := map[string]func(*testing.T, Harness){
		"PublishConfig": testPublishConfig,
		"ReplaceConfig": testReplaceConfig,
		"Reserve":       testReserve,
	}
	for name := range (failures[Store]{}).tests() {
		tests["Admin"+name] = func(t *testing.T, h Harness) {
			failures[Store]{h.Store, h.Unreachable, h.Silent, h.Limit, func(s Store) calls { return adminCalls(s) }}.tests()[name](t)
		}
	}
	run(t, open, tests)
}

func testPublishConfig(t *testing.T, h Harness) {
	first, second := []byte(`{"Network":"10.5.0.0/16"}`), []byte(`{"Network":"10.6.0.0/16"}`)
	if written, err := h.Store.PublishConfig(t.Context(), first); !written || err != nil {
		t.Fatalf("PublishConfig to an empty store = %v, %v", written, err)
	}
	if written, err := h.Store.PublishConfig(t.Context(), second); written || err != nil {
		t.Fatalf("PublishConfig over another = %v, %v", written, err)
	}
	if got, err := h.Store.Config(t.Context()); err != nil || !bytes.Equal(got, first) {
		t.Fatalf("Config = %q, %v; want the first one", got, err)
	}
}

func testReplaceConfig(t *testing.T, h Harness) {
	first, second := []byte(`{"Network":"10.5.0.0/16"}`), []byte(`{"Network":"10.6.0.0/16"}`)
	if err := h.Store.ReplaceConfig(t.Context(), first, second); !errors.Is(err, subnet.ErrConflict) {
		t.Fatalf("ReplaceConfig of none = %v, want ErrConflict", err)
	}
	if _, err := h.Store.PublishConfig(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := h.Store.ReplaceConfig(t.Context(), second, second); !errors.Is(err, subnet.ErrConflict) {
		t.Fatalf("ReplaceConfig of another = %v, want ErrConflict", err)
	}
	if err := h.Store.ReplaceConfig(t.Context(), first, second); err != nil {
		t.Fatalf("ReplaceConfig = %v", err)
	}
	if got, err := h.Store.Config(t.Context()); err != nil || !bytes.Equal(got, second) {
		t.Fatalf("Config = %q, %v; want the second one", got, err)
	}
}

func testReserve(t *testing.T, h Harness) {
	r, err := h.Store.Reserve(t.Context(), host(1))
	if err != nil || !r.Reserved {
		t.Fatalf("Reserve = %+v, %v", r, err)
	}
	if _, err := h.Store.Reserve(t.Context(), host(1)); !errors.Is(err, subnet.ErrExists) {
		t.Fatalf("Reserve again = %v, want ErrExists", err)
	}
	l := h.create(t, host(2), longTTL)
	stale := l
	stale.Rev++
	if _, err := h.Store.Reserve(t.Context(), stale); !errors.Is(err, subnet.ErrConflict) {
		t.Fatalf("Reserve what was written since = %v, want ErrConflict", err)
	}
	another := l
	another.Attrs.PublicIP = host(3).Attrs.PublicIP
	if _, err := h.Store.Reserve(t.Context(), another); !errors.Is(err, subnet.ErrConflict) {
		t.Fatalf("Reserve another host's lease at the same revision = %v, want ErrConflict", err)
	}
	if _, err := h.Store.Reserve(t.Context(), l); err != nil {
		t.Fatalf("Reserve what is leased = %v", err)
	}
	leases, _ := h.list(t)
	if len(leases) != 2 {
		t.Fatalf("List = %v, want two", leases)
	}
	for _, l := range leases {
		if !l.Reserved {
			t.Errorf("%v is not reserved", l)
		}
	}
	if err := h.Store.Delete(t.Context(), r); err != nil {
		t.Errorf("Delete a reservation: %v", err)
	}
}
