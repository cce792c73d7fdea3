package wireguard

import (
	"net/netip"
	"strings"
	"testing"
)

// A Network that holds the hosts' own addresses would lead what the hosts send each
// other, and to the store, into the tunnel.
func TestNewRefusesNetworkAroundUplink(t *testing.T) {
	c := config(t, `{}`)
	c.Network = netip.MustParsePrefix("192.168.0.0/16")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "192.168.77.1") {
		t.Errorf("got %v", err)
	}
}
