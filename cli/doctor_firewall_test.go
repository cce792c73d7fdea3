package cli

import (
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// firewalled is a host with rules, whose doctor looks at port 8285.
type firewalled struct {
	*testing.T
	*netnstest.Host
}

func newFirewalled(t *testing.T) firewalled {
	netnstest.Require(t)
	return firewalled{t, netnstest.New(t).Host("a")}
}

func (h firewalled) run(name string, args ...string) {
	h.Helper()
	if out, err := h.Command(h.Context(), name, args...).CombinedOutput(); err != nil {
		h.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// finds has the doctor say a verdict and words, and what it names mend that.
func (h firewalled) finds(rules, verdict, words string) {
	h.Helper()
	look := func() (f finding) {
		h.Helper()
		d := doctor{port: 8285, config: &subnet.Config{BackendType: "udp"}, ports: map[string]int{"udp": 8285}}
		if err := h.Do(func() error { f = d.firewall(h.Context()); return nil }); err != nil {
			h.Fatal(err)
		}
		return f
	}
	f := look()
	if f.Verdict != verdict || !strings.Contains(f.Found, words) {
		h.Errorf("%s: %+v, want %s and %q", rules, f, verdict, words)
	}
	if f.Verdict == verdictOK {
		return
	}
	command, _, _ := strings.Cut(f.Mend, ",")
	h.run("sh", "-c", command)
	if again := look(); again.Found == f.Found {
		h.Errorf("%s: after %s still: %+v", rules, command, f)
	}
}

const (
	drops = "drops UDP port 8285"
	some  = "drops some of what comes to UDP port 8285"
	every = "drops all, and none before it accepts UDP port 8285"
)

// TestFirewallReadsRules has nft(8) make the rules of a chain at the input hook;
// "x" is one that only rules lead to.
func TestFirewallReadsRules(t *testing.T) {
	h := newFirewalled(t)
	for _, tt := range []struct{ in, x, verdict, words string }{
		{"udp dport 8285 drop", "", verdictFail, drops},
		{"meta nfproto ipv4 udp dport 8285 reject", "", verdictFail, drops},
		{"ip protocol udp udp dport 8285 accept; drop", "", verdictOK, ""},
		{"ip saddr 192.0.2.9 udp dport 8285 drop", "", verdictWarn, some},
		{"ip saddr 192.0.2.9 udp dport 8285 drop; udp dport 8285 drop", "", verdictFail, drops},
		{"udp dport 8285 iifname eth0 counter drop", "", verdictWarn, some},
		{"ip saddr { 192.0.2.9, 192.0.2.10 } udp dport 8285 drop", "", verdictWarn, some},
		{"udp dport 8000-9000 drop", "", verdictFail, drops},
		{"udp dport != 8000-9000 drop", "", verdictOK, ""},
		{"udp dport != 53 drop", "", verdictFail, drops},
		{"udp dport != 8285 drop", "", verdictOK, ""},
		{"udp dport < 8285 drop; udp dport > 8285 drop", "", verdictOK, ""},
		{"udp dport <= 8285 drop", "", verdictFail, drops},
		{"udp dport >= 8285 drop", "", verdictFail, drops},
		{"tcp dport 8285 drop", "", verdictOK, ""},
		{"udp sport 8285 drop", "", verdictOK, ""},
		{"meta nfproto ipv6 udp dport 8285 drop", "", verdictOK, ""},

		// Sets of ports, and of protocols.
		{"udp dport { 53, 8285 } drop", "", verdictFail, drops},
		{"udp dport { 53, 8286 } drop", "", verdictOK, ""},
		{"udp dport != { 53, 8286 } drop", "", verdictFail, drops},
		{"udp dport { 1-8284, 8286-65535 } drop", "", verdictOK, ""},
		{"udp dport { 1-8284, 8285-65535 } drop", "", verdictFail, drops},
		{"udp dport { 1-8000, 8001-9000 } drop", "", verdictFail, drops},
		{"udp dport { 0-100, 8285 } drop", "", verdictFail, drops},
		{"udp dport { 0-100, 8286 } drop", "", verdictOK, ""},
		{"udp dport @named drop", "", verdictFail, drops},
		{"meta l4proto { tcp, udp } th dport 8285 drop", "", verdictFail, drops},
		{"meta l4proto { tcp, icmp } drop", "", verdictOK, ""},
		{"udp dport . ip saddr { 8285 . 192.0.2.9 } drop", "", verdictOK, ""},

		// Chains.
		{"jump x", "udp dport 8285 drop", verdictFail, drops},
		{"jump x; drop", "udp dport 8285 accept", verdictOK, ""},
		{"jump x; drop", "return; udp dport 8285 accept", verdictFail, every},
		{"jump x; drop", "iifname lo return; udp dport 8285 accept", verdictOK, ""},
		{"udp dport 8285 jump x", "drop", verdictFail, drops},
		{"udp dport { 53 } jump x", "drop", verdictOK, ""},
		{"iifname eth0 jump x", "udp dport 8285 drop", verdictWarn, some},
		{"udp dport 8285 goto x; drop", "iifname lo return", verdictOK, ""},
		{"jump x", "jump y", verdictFail, drops}, // y drops
		{"ct state vmap { established : accept, invalid : drop }; jump x", "udp dport 8285 drop", verdictFail, drops},

		// What is dropped in the end.
		{"ct state established accept; iifname lo accept; reject", "", verdictFail, every},
		{"udp dport 53 accept; meta l4proto udp drop", "", verdictFail, every},
		{"accept; drop", "", verdictOK, ""},
	} {
		h.run("nft", "add table inet t; delete table inet t; add table inet t; add chain inet t y; add rule inet t y udp dport 8285 drop;"+
			"add set inet t named { type inet_service; flags interval; }; add element inet t named { 8000-9000 };"+
			"add chain inet t x; add chain inet t in { type filter hook input priority 0; }")
		for chain, rules := range map[string]string{"x": tt.x, "in": tt.in} {
			for rule := range strings.SplitSeq(rules, "; ") {
				if rule != "" {
					h.run("nft", "add rule inet t "+chain+" "+rule)
				}
			}
		}
		h.finds(tt.in+" x: "+tt.x, tt.verdict, tt.words)
	}
}

func TestFirewallReadsPolicies(t *testing.T) {
	h := newFirewalled(t)
	for table, verdict := range map[string]string{"inet t": verdictWarn, "ip t": verdictWarn, "ip6 t": verdictOK, "bridge t": verdictOK} {
		h.run("nft", "add table "+table+"; add chain "+table+" in { type filter hook input priority 0; policy drop; }")
		h.finds(table, verdict, "UDP port 8285")
		h.run("nft", "delete table "+table)
	}
}

func TestFirewallReadsIPTables(t *testing.T) {
	h := newFirewalled(t)
	for _, tt := range []struct{ args, verdict, words string }{
		{"-p udp --dport 8285 -j DROP", verdictFail, drops},
		{"-p udp --dport 8000:9000 -j REJECT", verdictFail, drops},
		{"-p udp ! --dport 8285 -j REJECT", verdictOK, ""},
		{"-s 192.0.2.9 -p udp --dport 8285 -j DROP", verdictWarn, some},
		{"-p udp --dport 8285 -m comment --comment none -j DROP", verdictFail, drops},
		{"-p udp -m multiport --dports 53,8000:9000 -j DROP", verdictFail, drops},
		{"-p udp -m multiport --dports 53,8000:8284,8286 -j DROP", verdictOK, ""},
		{"-p udp -m multiport ! --dports 53,8000 -j DROP", verdictFail, drops},
		{"-p udp -m multiport --sports 8285 -j DROP", verdictOK, ""},
		{"-m conntrack --ctstate INVALID -j DROP", verdictOK, ""},
		{"-j REJECT", verdictFail, every},
		{"-j x", verdictFail, drops},
	} {
		for _, line := range []string{"-F", "-X", "-N x", "-A x -p udp --dport 8285 -j DROP", "-A INPUT " + tt.args} {
			h.run("iptables-nft", strings.Fields(line)...)
		}
		h.finds("iptables "+tt.args, tt.verdict, tt.words)
	}
}
