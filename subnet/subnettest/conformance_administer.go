package subnettest

import (
	"bytes"
	"errors"
	"testing"

	"github.com/coreos/flannel/subnet"
)

func testReplaceConfig(t *testing.T, h Harness) {
	first, second := []byte(`{"Network":"10.5.0.0/16"}`), []byte(`{"Network":"10.6.0.0/16"}`)
	if err := h.Registry.ReplaceConfig(t.Context(), first, second); !errors.Is(err, subnet.ErrLost) {
		t.Fatalf("ReplaceConfig of none = %v, want ErrLost", err)
	}
	if _, err := h.Registry.PublishConfig(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	if err := h.Registry.ReplaceConfig(t.Context(), second, second); !errors.Is(err, subnet.ErrLost) {
		t.Fatalf("ReplaceConfig of another = %v, want ErrLost", err)
	}
	if err := h.Registry.ReplaceConfig(t.Context(), first, second); err != nil {
		t.Fatalf("ReplaceConfig = %v", err)
	}
	if got, err := h.Registry.Config(t.Context()); err != nil || !bytes.Equal(got, second) {
		t.Fatalf("Config = %q, %v; want the second one", got, err)
	}
}

func testReserve(t *testing.T, h Harness) {
	r, err := h.Registry.Reserve(t.Context(), host(1))
	if err != nil || !r.Reserved {
		t.Fatalf("Reserve = %+v, %v", r, err)
	}
	if _, err := h.Registry.Reserve(t.Context(), host(1)); !errors.Is(err, subnet.ErrExists) {
		t.Fatalf("Reserve again = %v, want ErrExists", err)
	}
	l := h.create(t, host(2), longTTL)
	stale := l
	stale.Rev++
	if _, err := h.Registry.Reserve(t.Context(), stale); !errors.Is(err, subnet.ErrLost) {
		t.Fatalf("Reserve what was written since = %v, want ErrLost", err)
	}
	if _, err := h.Registry.Reserve(t.Context(), l); err != nil {
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
	if err := h.Registry.Delete(t.Context(), r); err != nil {
		t.Errorf("Delete a reservation: %v", err)
	}
}
