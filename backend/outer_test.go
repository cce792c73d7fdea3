package backend

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// sides is a Config with networks and addresses of these families; "l" is a link-local
// IPv6 address.
func sides(inside, outside string) Config {
	var c Config
	if strings.Contains(inside, "4") {
		c.Network = netip.MustParsePrefix("10.5.0.0/16")
	}
	if strings.Contains(inside, "6") {
		c.IPv6Network = netip.MustParsePrefix("fd00:5::/48")
	}
	if strings.Contains(outside, "4") {
		c.Uplink = uplink.Uplink{Name: "eth0", Addr: netip.MustParseAddr("192.0.2.1")}
	}
	if strings.Contains(outside, "6") {
		c.IPv6Uplink = uplink.Uplink{Name: "eth0", Addr: netip.MustParseAddr("2001:db8::1")}
	}
	if strings.Contains(outside, "l") {
		c.IPv6Uplink = uplink.Uplink{Name: "eth0", Addr: netip.MustParseAddr("fe80::1")}
	}
	return c
}

func names(families []inet.Family) (s string) {
	for _, f := range families {
		s += f.String()[3:]
	}
	return s
}

func TestOuter(t *testing.T) {
	for _, test := range []struct{ inside, outside, mode, want string }{
		{"4", "4", "auto", "4"}, {"4", "46", "auto", "4"}, {"4", "6", "auto", "6"},
		{"6", "6", "auto", "6"}, {"6", "46", "auto", "6"}, {"6", "4", "auto", "4"},
		{"46", "46", "auto", "46"}, {"46", "4", "auto", "4"}, {"46", "6", "auto", "6"},
		{"46", "46", "ipv4", "4"}, {"46", "46", "ipv6", "6"}, {"4", "46", "ipv6", "6"},
		{"46", "4", "ipv6", "Backend.Mode ipv6: this host has no IPv6 address for other hosts"},
		{"46", "6", "ipv4", "Backend.Mode ipv4: this host has no IPv4 address for other hosts"},
		{"46", "", "auto", "this host has no address"},
		{"46", "4l", "auto", "4"}, {"6", "l", "auto", "this host has no address for other hosts (link-local ones of IPv6 do not count)"},
		{"46", "4l", "ipv6", "Backend.Mode ipv6: this host has no IPv6 address for other hosts (link-local ones do not count); add one"},
	} {
		got, err := sides(test.inside, test.outside).Outer(test.mode)
		if err != nil && !strings.HasPrefix(err.Error(), test.want) || err == nil && names(got) != test.want {
			t.Errorf("inside %s, outside %s, mode %s: %s, %v; want %s", test.inside, test.outside, test.mode, names(got), err, test.want)
		}
	}
}

func TestChooseOuter(t *testing.T) {
	v4, v6, linkLocal := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("fe80::2")
	for _, test := range []struct {
		own  string
		peer subnet.Attrs
		want [2]string // by the inner family; "": none
	}{
		{"46", subnet.Attrs{PublicIP: v4, PublicIPv6: linkLocal}, [2]string{"4", "4"}},
		{"6", subnet.Attrs{PublicIP: v4, PublicIPv6: linkLocal}, [2]string{}},
		{"46", subnet.Attrs{PublicIP: v4, PublicIPv6: v6}, [2]string{"4", "6"}},
		{"46", subnet.Attrs{PublicIP: v4}, [2]string{"4", "4"}},
		{"46", subnet.Attrs{PublicIPv6: v6}, [2]string{"6", "6"}},
		{"4", subnet.Attrs{PublicIP: v4, PublicIPv6: v6}, [2]string{"4", "4"}},
		{"6", subnet.Attrs{PublicIP: v4}, [2]string{}},
	} {
		own := slices.DeleteFunc(slices.Clone(inet.Families[:]), func(f inet.Family) bool { return !strings.Contains(test.own, f.String()[3:]) })
		for _, inner := range inet.Families {
			got, err := ChooseOuter(inner, own, test.peer)
			if (err != nil) != (test.want[inner] == "") || err == nil && got.String()[3:] != test.want[inner] {
				t.Errorf("own %s, peer %+v, inner %v: %v, %v; want %s", test.own, test.peer, inner, got, err, test.want[inner])
			}
		}
	}
	_, err := ChooseOuter(inet.IPv6, []inet.Family{inet.IPv6}, subnet.Attrs{PublicIPv6: linkLocal})
	if err == nil || !strings.HasPrefix(err.Error(), "its lease names the link-local address fe80::2, to which this host cannot send") {
		t.Errorf("a peer with a link-local address: %v", err)
	}
}
