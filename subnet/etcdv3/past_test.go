package etcdv3

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// Every moment of a short past is looked at; of a long one the fewer the longer
// ago, and the first and the last.
func TestMoments(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		back, n int64
		want    []int64
	}{
		{1, 96, []int64{1}},
		{100, 0, nil},
		{100, 1, []int64{100}},
		{5, 96, []int64{1, 2, 3, 4, 5}},
		{6, 6, []int64{1, 2, 3, 4, 5, 6}},
		{7, 6, []int64{1, 2, 3, 4, 5, 7}},
		{100000, 5, []int64{10, 100, 1000, 10000, 100000}},
	} {
		if got := moments(c.back, c.n); !slices.Equal(got, c.want) {
			t.Errorf("of %d, %d moments: %v, want %v", c.back, c.n, got, c.want)
		}
	}
	ages := moments(pastWindow, pastMoments)
	if n := len(ages); n > pastMoments || ages[0] != 1 || ages[n-1] != pastWindow {
		t.Errorf("%d moments up to %d", n, ages[n-1])
	}
	for i, age := range ages[1:] {
		if young := ages[i]; age-young > 1+young/6 {
			t.Errorf("nothing is seen between %d and %d revisions ago", young, age)
		}
	}
}

// What is compacted costs the past before it, and no more.
func TestPastPartlyCompacted(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := open(t, srv.StoreConfig("/past"))
	b := backdoor{t, srv.Client(), r.cfg.LeaseDir()}
	for n := range 12 { // all of so short a past are looked at
		b.put("10.5.1.0-24", []byte(`{"PublicIP":"192.0.2.1"}`), 0)
		b.delete("10.5.1.0-24")
		b.put("10.5.2.0-24", []byte(`{"PublicIP":"192.0.2.2"}`), 0)
		b.forget()
		b.delete("10.5.2.0-24")
		for i := range n {
			b.write(r.cfg.ConfigKey(), fmt.Append(nil, i), 0)
		}
		leases, rev, err := r.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Past(t.Context(), rev, leases)
		slices.SortFunc(found, netip.Prefix.Compare)
		if err != nil || fmt.Sprint(slices.Compact(found)) != "[10.5.2.0/24]" {
			t.Errorf("%d moments after the compaction: Past = %v, %v; want what was deleted since", n, slices.Compact(found), err)
		}
	}
}

// A history in which nothing is gone is not read; one in which very many are is
// read where all of them were there.
func TestPastOfMany(t *testing.T) {
	t.Parallel()
	srv := etcdserver.Start(t, etcdserver.Options{})
	r := open(t, srv.StoreConfig("/past"))
	b := backdoor{t, srv.Client(), r.cfg.LeaseDir()}
	const many = 2000
	key := func(i int) string { return fmt.Sprintf("10.%d.%d.0-24", i>>8, i&0xff) }
	for i := range many {
		b.put(key(i), []byte(`{"PublicIP":"192.0.2.1"}`), 0)
	}
	past := func() []netip.Prefix {
		t.Helper()
		leases, rev, err := r.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Past(t.Context(), rev, leases)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(found, netip.Prefix.Compare)
		return slices.Compact(found)
	}
	if found := past(); len(found) > 0 {
		t.Errorf("nothing is gone, and Past names %d, %v and so on", len(found), found[0])
	}
	for i := range many / 4 { // that was so for long enough to be seen
		b.write(r.cfg.ConfigKey(), fmt.Append(nil, i), 0)
	}
	for i := range many {
		b.delete(key(many - 1 - i))
	}
	if found := past(); len(found) < many {
		t.Errorf("Past names %d of %d that are gone", len(found), many)
	}
}
