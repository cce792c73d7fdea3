package rtnl

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// To the kernel, an IPv4 address of a macvlan device is one of the device below, too: that
// answers ARP requests for it. It is no IPv6 address of that.
func TestReachByMacvlan(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	out, err := h.Command(t.Context(), "ip", "link", "add", "link", netnstest.Uplink, "name", "top0", "type", "macvlan", "mode", "bridge").CombinedOutput()
	if err != nil {
		if text := string(out); strings.Contains(text, "Unknown device type") || strings.Contains(text, "not supported") {
			netnstest.MACVLAN.Skip(t, text)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	h.Up("top0")
	h.AddAddr("top0", netip.MustParsePrefix("192.168.90.1/24"))
	h.AddAddr("top0", netip.MustParsePrefix("fd00:90::1/64"))
	index := func(name string) uint32 {
		l, err := h.Netlink().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(l.Attrs().Index)
	}
	below, top := index(netnstest.Uplink), index("top0")
	want := map[netip.Addr][]uint32{
		netip.MustParseAddr("192.168.77.9"): {below},
		netip.MustParseAddr("192.168.90.9"): {min(below, top), max(below, top)},
		netip.MustParseAddr("fd00:90::9"):   {top},
	}
	err = h.Do(func() error {
		r, err := NewReach()
		if err != nil {
			return err
		}
		defer r.Close()
		for a, interfaces := range want {
			found, err := r.Interfaces([]netip.Addr{a})
			if err != nil {
				return err
			}
			if !slices.Equal(found[a], interfaces) {
				t.Errorf("%v arrives by %v, want %v", a, found[a], interfaces)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
