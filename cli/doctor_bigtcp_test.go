package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/status"
)

// doctor warns of containers whose super-packets the tunnel's device does not take.
func TestCheckBigTCP(t *testing.T) {
	h := newFirewallHost(t)
	known := &facts{report: new(status.Report)}
	known.report.Lease = &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")}
	check := func() (f finding) {
		t.Helper()
		if err := h.Do(func() error { f = checkBigTCP(known); return nil }); err != nil {
			t.Fatal(err)
		}
		return f
	}
	h.Bridge("pods", netip.MustParsePrefix("10.5.1.1/24"), 1450)
	h.Container("c", "pods", netip.MustParsePrefix("10.5.1.2/24"), netip.MustParseAddr("10.5.1.1"), 1450)
	var port string
	err := h.Do(func() error {
		limits, err := netdev.GSOLimits()
		for _, l := range limits {
			if l.Bridge == "pods" {
				port = l.Device
			}
		}
		return err
	})
	if err != nil || port == "" {
		t.Fatalf("the bridge's port is %q, %v", port, err)
	}
	if out, err := h.Command(t.Context(), "ip", "link", "set", port, "gso_max_size", "150000").CombinedOutput(); err != nil {
		netnstest.BigTCP.Missing(t, string(out))
		return
	}
	if f := check(); f.Verdict != "" {
		t.Errorf("without a tunnel: %+v", f)
	}
	h.run("ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1", "dstport", "8472", "dev", netnstest.Uplink)
	h.AddAddr("pods", netip.MustParsePrefix("fd00:5:0:1::1/64"))
	known.report.Lease = &status.Lease{IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64")}
	if f := check(); f.Verdict != verdictWarn {
		t.Errorf("a port with BIG TCP, with IPv6 only: %+v", f)
	}
	known.report.Lease = &status.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24")}
	if f := check(); f.Verdict != verdictWarn || !strings.Contains(f.Found, port+" (150000 bytes)") || !strings.Contains(f.Fix, "ip link set "+port+" gso_max_size 65536") {
		t.Errorf("a port with BIG TCP: %+v", f)
	}
	h.run("sh", "-c", strings.Split(check().Fix, ",")[0])
	if f := check(); f.Verdict != "" {
		t.Errorf("after the fix: %+v", f)
	}
}
