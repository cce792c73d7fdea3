package e2e

import (
	"net/netip"
	"strings"
	"testing"
)

// A host with two interfaces: the default route's, and one to a network that
// only a flag can choose.
func TestInterfaceFlags(t *testing.T) {
	second := netip.MustParsePrefix("172.20.0.1/24")
	for _, test := range []struct {
		name   string
		args   []string
		second bool
	}{
		{"default route", nil, false},
		{"name", []string{"-iface=eth1"}, true},
		{"address", []string{"-iface=172.20.0.1"}, true},
		{"first that is there", []string{"-iface=eth7", "-iface=eth1", "-iface=eth0"}, true},
		{"regex on names", []string{"-iface-regex=^et.1$"}, true},
		{"regex on addresses", []string{`-iface-regex=^172\.20\.`}, true},
		{"can reach", []string{"-iface-can-reach=172.20.0.77"}, true},
		{"can reach the other", []string{"-iface-can-reach=8.8.8.8"}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, "3")
			a := c.node("a")
			c.lab.Wire(a.Host, "eth1", c.lab.Router(), "second", 0)
			a.AddAddr("eth1", second)
			a.join(test.args...)
			want, name := a.Addr().Addr(), "eth0"
			if test.second {
				want, name = second.Addr(), "eth1"
			}
			if lease := c.leases()[a.leaseKey()]; !strings.Contains(lease, want.String()) {
				t.Errorf("the lease is %s, want PublicIP %v", lease, want)
			}
			if s := a.status(); s.Node.Iface != name || s.Node.PublicIP != want {
				t.Errorf("status says %s and %v, want %s and %v", s.Node.Iface, s.Node.PublicIP, name, want)
			}
		})
	}
}

func TestPublicIP(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	a.join("-public-ip=198.51.100.7")
	if lease, want := shared(c.leases()[a.leaseKey()]), `{"PublicIP":"198.51.100.7","PublicIPv6":null}`; lease != want {
		t.Errorf("the lease is %s, want %s", lease, want)
	}
}
