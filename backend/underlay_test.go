package backend

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/uplink"
)

func TestCheckUnderlay(t *testing.T) {
	c := Config{Uplink: uplink.Uplink{Name: "eth0", Addr: netip.MustParseAddr("172.31.9.1")}, PublicIP: netip.MustParseAddr("203.0.113.5")}
	for network, want := range map[string]string{
		"10.5.0.0/16": "", "172.31.8.0/24": "", "172.31.9.0/24": "contains 172.31.9.1", "172.16.0.0/12": "contains 172.31.9.1", "203.0.113.0/24": "contains 203.0.113.5",
	} {
		err := c.CheckUnderlay("Network", netip.MustParsePrefix(network))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), network+": it "+want)) {
			t.Errorf("%s: %v, want %q", network, err, want)
		}
	}
}
