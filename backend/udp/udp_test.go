package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
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
