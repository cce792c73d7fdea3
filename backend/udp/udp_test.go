package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
)

// A Network that holds the hosts' own addresses would swallow their datagrams.
func TestNewRefusesNetworkAroundUplink(t *testing.T) {
	c := backend.Config{
		Network: netip.MustParsePrefix("192.168.64.0/18"), SubnetLen: 24,
		Uplink: uplink.Uplink{Name: "eth0", MTU: 1500, Addr: netip.MustParseAddr("192.168.90.1")},
	}
	for _, public := range []string{"192.168.90.1", "203.0.113.1"} {
		c.PublicIP = netip.MustParseAddr(public)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), "192.168.64.0/18: it contains 192.168.90.1") {
			t.Errorf("public IP %s: got %v", public, err)
		}
	}
	c.Uplink.Addr = netip.MustParseAddr("192.0.2.1")
	c.PublicIP = c.Uplink.Addr
	if _, err := New(c); err != nil {
		t.Errorf("a Network elsewhere: %v", err)
	}
}

// Peers take datagrams from PublicIP alone, so that is what they must come from
// where it is ours; behind NAT it is not.
func TestLocalAddr(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("h")
	second := netip.MustParseAddr("198.51.100.7")
	h.AddAddr(netnstest.Uplink, netip.PrefixFrom(second, 32))
	uplink := h.Addr().Addr()
	for publicIP, want := range map[netip.Addr]netip.Addr{
		uplink: uplink, second: second, netip.MustParseAddr("203.0.113.9"): uplink,
	} {
		var got netip.Addr
		err := h.Do(func() (err error) { got, err = localAddr(publicIP, uplink); return err })
		if err != nil || got != want {
			t.Errorf("-public-ip=%v: %v, %v; want %v", publicIP, got, err, want)
		}
	}
}
