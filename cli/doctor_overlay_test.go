package cli

import (
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/status"
)

// The peers of each family are pinged from our subnet of that family.
func TestDoctorPingsPeersOfBothFamilies(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("a")
	for _, addr := range []string{"10.5.1.0/32", "10.5.2.0/32", "fd00:5:0:1::/128", "fd00:5:0:2::1/128"} {
		h.AddAddr("lo", netip.MustParsePrefix(addr))
	}
	f := &facts{report: &status.Report{Snapshot: status.Snapshot{
		Lease:   &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64")},
		Backend: &status.Backend{Type: "udp", MTU: 1400},
	}}}
	for _, p := range []string{"10.5.2.0/24", "fd00:5:0:2::/64"} {
		f.report.Backend.Peers = append(f.report.Backend.Peers, status.Peer{Subnet: netip.MustParsePrefix(p), PublicIP: netip.MustParseAddr("10.5.2.0")})
	}
	var o *overlay
	if err := h.Do(func() error { o = measureOverlay(t.Context(), f); return o.err }); err != nil {
		t.Fatal(err)
	}
	for _, p := range o.peers {
		if !p.answers || p.mtu != 1400 {
			t.Errorf("%v: answers %v, MTU %d", p, p.answers, p.mtu)
		}
	}
}
