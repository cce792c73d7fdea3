package hostgw

import (
	"net/netip"
	"strings"
	"testing"
)

// What does not work at an uplink in a VRF is an error before there is a lease.
func TestNewWithUplinkInVRF(t *testing.T) {
	c := config(netip.MustParseAddr("192.168.77.1"), 1500)
	c.Uplink.VRF = "red"
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "VRF red") {
		t.Errorf("got %v", err)
	}
}
