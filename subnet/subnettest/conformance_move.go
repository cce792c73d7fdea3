package subnettest

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/coreos/flannel/subnet"
)

// Families tests a subnet.Keyspace whose leases may have parts of both families.
func Families(t *testing.T, open func(t *testing.T) Harness) {
	run(t, open, map[string]func(*testing.T, Harness){
		"FamiliesRoundTrip":    testFamiliesRoundTrip,
		"FamiliesOverlapping":  testFamiliesOverlapping,
		"Move":                 testMove,
		"MoveIsOneStep":        testMoveIsOneStep,
		"MoveConflict":         testMoveConflict,
		"MoveReservation":      testMoveReservation,
		"MoveNothingBad":       testMoveNothingBad,
		"MoveUnreachableStore": testMoveUnreachable,
	})
}

// dual is host(n) with a part of each family, 10.5.n.0/24 and fd00:5:0:n::/64.
func dual(n byte) subnet.Lease {
	l := host(n)
	l.IPv6Subnet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 5, 7: n}), 64)
	l.Attrs.PublicIPv6 = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 15: n})
	l.Attrs.BackendType = "vxlan"
	l.Attrs.BackendData, l.Attrs.BackendV6Data = []byte(`{"VNI":1}`), []byte(`{"VNI":6}`)
	return l
}

// v6Only is dual(n) without IPv4.
func v6Only(n byte) subnet.Lease {
	l := dual(n)
	l.Subnet, l.Attrs.PublicIP, l.Attrs.BackendData = netip.Prefix{}, netip.Addr{}, nil
	return l
}

func testFamiliesRoundTrip(t *testing.T, h Harness) {
	for _, want := range []subnet.Lease{dual(1), v6Only(2)} {
		made := h.create(t, want, longTTL)
		got, err := h.Store.Get(t.Context(), made)
		if err != nil || !got.StoredAs(made) || got.Key() != want.Key() || !got.Attrs.Equal(want.Attrs) {
			t.Errorf("Get = %+v, %v; want %+v", got, err, made)
		}
	}
}

func testFamiliesOverlapping(t *testing.T, h Harness) {
	other := dual(1)
	other.Subnet = host(9).Subnet
	for _, l := range []subnet.Lease{dual(1), v6Only(2), host(3)} {
		h.create(t, l, longTTL)
	}
	wide := subnet.Lease{IPv6Subnet: netip.MustParsePrefix("fd00:5::/48")}
	for _, test := range []struct {
		of   subnet.Lease
		want int
	}{{dual(1), 1}, {other, 1}, {v6Only(1), 1}, {host(1), 1}, {v6Only(2), 1}, {dual(2), 1}, {dual(3), 1}, {v6Only(3), 0}, {wide, 2}, {host(2), 0}} {
		if leases, err := h.Store.Overlapping(t.Context(), test.of); err != nil || len(leases) != test.want {
			t.Errorf("Overlapping %v = %v, %v; want %d", test.of, leases, err, test.want)
		}
	}
}

func testMove(t *testing.T, h Harness) {
	stored := h.create(t, host(1), longTTL)
	before := time.Now()
	moved, err := h.Store.Move(t.Context(), stored, dual(1), 2*longTTL)
	if err != nil || moved.Key() != dual(1).Key() || moved.Rev <= stored.Rev || moved.Created != moved.Rev || moved.Reserved {
		t.Fatalf("Move = %+v, %v", moved, err)
	}
	if moved.Expiration.Before(before.Add(2 * longTTL)) {
		t.Errorf("it ends at %v, want %v from %v", moved.Expiration, 2*longTTL, before)
	}
	leases, _ := h.list(t)
	if len(leases) != 1 || !leases[0].StoredAs(moved) || !leases[0].Attrs.Equal(dual(1).Attrs) {
		t.Errorf("List = %+v, want %+v", leases, moved)
	}
	if _, hasTTL := h.Get(moved.Key()); !hasTTL {
		t.Error("the store will never delete the key")
	}
	// The key can be renewed and moved back.
	renewed, err := h.Store.Update(t.Context(), moved, moved.Attrs, longTTL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Store.Move(t.Context(), renewed, host(1), longTTL); err != nil {
		t.Error(err)
	}
	if leases, _ := h.list(t); len(leases) != 1 || leases[0].Key() != host(1).Key() {
		t.Errorf("List = %+v", leases)
	}
}

// testMoveIsOneStep: a watch delivers both changes together, the removal first.
func testMoveIsOneStep(t *testing.T, h Harness) {
	stored := h.create(t, host(1), longTTL)
	_, at := h.list(t)
	w := h.watch(t, at)
	moved, err := h.Store.Move(t.Context(), stored, dual(1), longTTL)
	if err != nil {
		t.Fatal(err)
	}
	wantEvent(t, w.next(), subnet.Removed, stored)
	if len(w.pending) == 0 {
		t.Fatal("the removal came alone")
	}
	wantEvent(t, w.next(), subnet.Added, moved)
}

func testMoveConflict(t *testing.T, h Harness) {
	stored := h.create(t, host(1), longTTL)
	h.create(t, dual(2), longTTL)
	moved := dual(2)
	moved.Attrs = stored.Attrs
	_, err := h.Store.Move(t.Context(), stored, moved, longTTL)
	wantErr(t, "Move to a key that exists", err, subnet.ErrExists)
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.9"}`), longTTL)
	_, err = h.Store.Move(t.Context(), stored, dual(1), longTTL)
	wantErr(t, "Move of what was written since", err, subnet.ErrConflict)
	_, err = h.Store.Move(t.Context(), host(7), dual(7), longTTL)
	wantErr(t, "Move of what is not there", err, subnet.ErrConflict)
	if leases, _ := h.list(t); len(leases) != 2 {
		t.Errorf("List = %v, want two leases", leases)
	}
}

func testMoveReservation(t *testing.T, h Harness) {
	h.Put(host(1).Key(), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	stored, ok := h.find(t, host(1))
	if !ok {
		t.Fatal("the reservation is not listed")
	}
	moved, err := h.Store.Move(t.Context(), stored, dual(1), longTTL)
	if err != nil || !moved.Reserved || !moved.Expiration.IsZero() {
		t.Errorf("Move = %+v, %v; want a reservation", moved, err)
	}
	if value, hasTTL := h.Get(dual(1).Key()); value == nil || hasTTL {
		t.Errorf("the key has %q, with a TTL: %v", value, hasTTL)
	}
}

func testMoveNothingBad(t *testing.T, h Harness) {
	stored := h.create(t, host(1), longTTL)
	bad := dual(1)
	bad.Attrs.PublicIP, bad.Attrs.PublicIPv6 = netip.Addr{}, netip.Addr{}
	if _, err := h.Store.Move(t.Context(), stored, bad, longTTL); err == nil || subnet.IsAnswer(err) {
		t.Errorf("Move to a lease without an address: %v", err)
	}
	if leases, _ := h.list(t); len(leases) != 1 || !leases[0].StoredAs(stored) {
		t.Errorf("List = %v", leases)
	}
}

func testMoveUnreachable(t *testing.T, h Harness) {
	s := h.Unreachable(t)
	t.Cleanup(func() { s.Close() })
	stored := host(1)
	stored.Rev = 1
	if _, err := s.Move(t.Context(), stored, dual(1), longTTL); subnet.IsAnswer(err) || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Move in a store that cannot be reached: %v", err)
	}
}
