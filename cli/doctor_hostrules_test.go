package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
)

// hostRules is the finding of checkHostRules on a host whose daemon uses a data path.
func (h firewallHost) hostRules(backend, dataPath string) (f finding) {
	h.Helper()
	known := &facts{
		flags: &doctorFlags{}, config: &subnet.Config{Range: udpConfig.Range, BackendType: backend},
		report: new(status.Report),
	}
	known.report.Backend = &status.Backend{DataPath: dataPath, Peers: []status.Peer{{PublicIP: netip.MustParseAddr("192.0.2.9")}}}
	known.uplink.Addr = h.Addr().Addr()
	if err := h.Do(func() error { f = checkHostRules(known); return nil }); err != nil {
		h.Fatal(err)
	}
	return f
}

// doctor names what keeps the udp backend from the kernel data path, and what this
// path passes by.
func TestHostRules(t *testing.T) {
	h := newFirewallHost(t)
	for _, test := range []struct{ add, del, words string }{
		{"true", "true", ""},
		{"nft 'add table ip f; add chain ip f c { type filter hook input priority 0; }; add rule ip f c udp dport 8285 drop'", "nft delete table ip f", "ip f c"},
		{"ip xfrm policy add src 0.0.0.0/0 dst 192.0.2.9 dir out tmpl proto esp mode transport", "ip xfrm policy flush", "demands esp"},
	} {
		h.run("sh", "-c", test.add)
		f := h.hostRules("udp", "kernel")
		if (f.Verdict == verdictWarn) != (test.words != "") || !strings.Contains(f.Found, test.words) || (f.Fix != "") != (test.words != "") {
			t.Errorf("%s: %+v, want %q", test.add, f, test.words)
		}
		if f := h.hostRules("vxlan", ""); f.Verdict != "" {
			t.Errorf("%s: vxlan: %+v", test.add, f)
		}
		h.run("sh", "-c", test.del)
	}
	if out, err := h.Command(t.Context(), "iptables-legacy", "-t", "mangle", "-L").CombinedOutput(); err != nil {
		netnstest.LegacyMangle.Skip(t, string(out))
	}
	if f := h.hostRules("udp", "kernel"); f.Verdict != verdictWarn || !strings.Contains(f.Found, "mangle of legacy iptables") {
		t.Errorf("with a table of legacy iptables: %+v", f)
	}
	if f := h.hostRules("udp", "offload"); f.Verdict != verdictOK {
		t.Errorf("rules of legacy iptables apply to the datagrams of offload, but doctor finds %+v", f)
	}
}
