package udp

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/uplink"
)

// At an uplink in a VRF the kernel data path is an error if it is named, and is
// passed over otherwise.
func TestUplinkInVRF(t *testing.T) {
	c := backend.Config{Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, PublicIP: netip.MustParseAddr("192.0.2.1"),
		Uplink: uplink.Uplink{Name: "eth0", MTU: 1500, Addr: netip.MustParseAddr("192.0.2.1"), VRF: "red"}}
	for path, refused := range map[string]bool{"auto": false, "offload": false, "plain": false, "kernel": true} {
		c.DataPath = path
		if _, err := New(c); (err != nil) != refused || refused && !strings.Contains(err.Error(), "VRF red") {
			t.Errorf("%s: got %v", path, err)
		}
	}
	if _, err := openKernel(t.Context(), &pathConfig{Config: c}); err == nil || !strings.Contains(err.Error(), "VRF red") {
		t.Errorf("openKernel: %v", err)
	}
}
