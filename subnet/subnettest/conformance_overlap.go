package subnettest

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/coreos/flannel/subnet"
)

// testOverlapping: Overlapping returns the leases of all lengths that share an
// address with a subnet, and no others; it leaves out bad ones.
func testOverlapping(t *testing.T, h Harness) {
	all := []string{
		"0.0.0.0-1", "10.0.0.0-8", "10.0.0.0-9", "10.5.0.0-16", "10.5.0.0-17", "10.5.128.0-17", "10.4.0.0-15",
		"10.5.16.0-20", "10.5.32.0-20", "10.5.17.0-24", "10.5.17.0-30", "10.5.17.128-25", "10.5.17.7-32",
		"10.5.1.0-24", "10.5.170.0-24", "10.50.17.0-24", "110.5.17.0-24", "10.5.17.0-24&fd00:0:0:17::-64", "10.5.16.0-20&fd00::-56",
	}
	for _, key := range all {
		h.Put(key, []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	}
	h.Put("10.5.17.64-26", []byte(`nonsense`), 0)
	h.Put("10.5.17.nonsense", []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	listed := make(map[string]subnet.Lease)
	leases, _ := h.list(t)
	for _, l := range leases {
		listed[l.Key()] = l
	}
	for _, text := range []string{"10.5.17.0/24", "10.5.16.0/20", "10.5.17.0/30", "10.5.17.7/32", "10.5.0.0/16", "10.0.0.0/10", "0.0.0.0/1", "192.0.2.0/24"} {
		p := netip.MustParsePrefix(text)
		var want, got []string
		for _, key := range all {
			if l, err := subnet.ParseKey(key); err != nil {
				t.Fatal(err)
			} else if l.Subnet.Overlaps(p) {
				want = append(want, key)
			}
		}
		leases, err := h.Store.Overlapping(t.Context(), subnet.Lease{Subnet: p})
		for _, l := range leases {
			got = append(got, l.Key())
			if same := listed[l.Key()]; same.Rev != l.Rev || !l.Reserved || !same.Attrs.Equal(l.Attrs) {
				t.Errorf("%s is listed as %+v, and overlaps as %+v", l.Key(), same, l)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("Overlapping %v = %v, %v; want %v", p, got, err, want)
		}
	}
}
