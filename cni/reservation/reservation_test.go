package reservation

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// store makes a folder as host-local leaves it.
func store(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func addrs(all []Reservation) (list []string) {
	for _, r := range all {
		list = append(list, r.Network+" "+r.Addr.String()+" "+r.Container+" "+r.Interface)
	}
	return list
}

func TestListAndFree(t *testing.T) {
	dir := store(t, map[string]string{
		"cbr0/10.1.2.3": "c1\r\neth0", "cbr0/fc00::3": "c1\r\neth0", "cbr0/10.1.2.4": "old\n", "cbr0/lock": "", "cbr0/last_reserved_ip.0": "10.1.2.4",
		"other/10.9.9.9": "c9\r\neth0", "file": "",
	})
	all, err := List(dir, "")
	want := []string{"cbr0 10.1.2.3 c1 eth0", "cbr0 10.1.2.4 old ", "cbr0 fc00::3 c1 eth0", "other 10.9.9.9 c9 eth0"}
	if err != nil || !slices.Equal(addrs(all), want) {
		t.Fatalf("List = %q, %v, want %q", addrs(all), err, want)
	}
	if all[0].Since.IsZero() {
		t.Error("the reservation has no time")
	}
	if one, err := List(dir, "other"); err != nil || len(one) != 1 {
		t.Errorf("List of one network = %v, %v", one, err)
	}
	if none, err := List(filepath.Join(dir, "none"), ""); err != nil || none != nil {
		t.Errorf("List of no folder = %v, %v", none, err)
	}
	if none, err := List(dir, "none"); err != nil || none != nil {
		t.Errorf("List of no network = %v, %v", none, err)
	}

	// Another pod gets the second address meanwhile.
	if err := os.WriteFile(filepath.Join(dir, "cbr0", "10.1.2.4"), []byte("new\r\neth0"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time nothing is there
		for _, r := range all[:2] {
			if err := r.Free(); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err = List(dir, "cbr0")
	if want := []string{"cbr0 10.1.2.4 new eth0", "cbr0 fc00::3 c1 eth0"}; err != nil || !slices.Equal(addrs(all), want) {
		t.Errorf("List = %q, %v, want %q", addrs(all), err, want)
	}
}

// An address of a namespace that has no process is in use.
func TestInUse(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	pod := lab.Namespace("pod")
	v4, v6 := netip.MustParsePrefix("10.99.98.97/24"), netip.MustParsePrefix("fd00:98::97/64")
	for _, a := range []netip.Prefix{v4, v6} {
		pod.AddAddr("lo", a)
	}
	used, err := InUse()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []string{v4.Addr().String(), v6.Addr().String(), "127.0.0.1"} {
		if !used[netip.MustParseAddr(a)] {
			t.Errorf("%s is not in use", a)
		}
	}
	if used[netip.MustParseAddr("10.99.98.96")] {
		t.Error("an address that nobody has is in use")
	}
}
