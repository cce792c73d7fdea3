package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// doctor names the host's networks that Network overlaps; the containers' own is
// none of them.
func TestDoctorComparesNetworkWithTheHost(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	h.Bridge("docker0", netip.MustParsePrefix("172.17.0.1/16"), 1500)
	h.Bridge("cni0", netip.MustParsePrefix("10.5.1.1/24"), 1500)
	for _, test := range []struct{ network, backend, lease, verdict, words string }{
		{"172.17.0.0/16", "udp", "", verdictFail, "the address of docker0"},
		{"172.17.0.0/16", "wireguard", "", verdictFail, "the address of docker0"},
		{"172.16.0.0/12", "udp", "", verdictWarn, "172.17.0.0/16 of docker0"},
		{"172.17.0.0/16", "vxlan", "", verdictWarn, "172.17.0.1/32 of docker0"},
		{"10.5.0.0/16", "udp", "10.5.1.0/24", verdictOK, "overlaps no other network"},
		{"10.5.0.0/16", "udp", "10.5.2.0/24", verdictWarn, "10.5.1.0/24 of cni0"},
		{"10.6.0.0/16", "udp", "", verdictOK, "overlaps no other network"},
	} {
		f := &facts{uplink: uplink.Uplink{Name: netnstest.Uplink}, config: &subnet.Config{Range: subnet.Range{Network: netip.MustParsePrefix(test.network), SubnetLen: 24}, BackendType: test.backend}}
		if test.lease != "" {
			f.report = &status.Report{Snapshot: status.Snapshot{Lease: &status.Lease{Subnet: netip.MustParsePrefix(test.lease)}}}
		}
		var got finding
		if err := h.Do(func() error { got = checkNetwork(f); return nil }); err != nil {
			t.Fatal(err)
		}
		if got.Verdict != test.verdict || !strings.Contains(got.Found, test.words) || (got.Verdict != verdictOK) != (got.Fix != "") {
			t.Errorf("%+v: %+v", test, got)
		}
	}
	h.AddAddr("cni0", netip.MustParsePrefix("fd00:5:0:7::1/64"))
	for lease, verdict := range map[string]string{"fd00:5:0:7::/64": verdictOK, "fd00:5:0:8::/64": verdictWarn} {
		f := &facts{uplink: uplink.Uplink{Name: netnstest.Uplink}, config: onlyIPv6Config}
		f.report = &status.Report{Snapshot: status.Snapshot{Lease: &status.Lease{IPv6Subnet: netip.MustParsePrefix(lease)}}}
		var got finding
		if err := h.Do(func() error { got = checkNetwork(f); return nil }); err != nil {
			t.Fatal(err)
		}
		if got.Verdict != verdict || verdict == verdictWarn && (!strings.Contains(got.Found, "fd00:5:0:7::/64 of cni0") || !strings.Contains(got.Fix, "IPv6SubnetMin")) {
			t.Errorf("%s: %+v", lease, got)
		}
	}
}
