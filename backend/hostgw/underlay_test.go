package hostgw

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/subnet"
)

// A subnet that is the hosts' own link is not for containers.
func TestUpRefusesTheHostsOwnNetwork(t *testing.T) {
	b, err := New(config(netip.MustParseAddr("192.168.77.1"), 1500))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("192.168.77.0/24")})
	if err == nil || !strings.Contains(err.Error(), "192.168.77.1") {
		t.Errorf("got %v", err)
	}
}
