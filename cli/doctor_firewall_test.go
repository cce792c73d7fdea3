package cli

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// firewallHost is a host with rules. Its network is 10.5.0.0/16, its port 8285.
type firewallHost struct {
	*testing.T
	*netnstest.Host
}

func newFirewallHost(t *testing.T) firewallHost {
	netnstest.Require(t)
	return firewallHost{t, netnstest.New(t).Host("a")}
}

func (h firewallHost) run(name string, args ...string) {
	h.Helper()
	if out, err := h.Command(h.Context(), name, args...).CombinedOutput(); err != nil {
		h.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func (h firewallHost) check(c *subnet.Config) (f finding) {
	h.Helper()
	if err := h.Do(func() error { f = checkFirewall(&facts{flags: &doctorFlags{port: 8285}, config: c}); return nil }); err != nil {
		h.Fatal(err)
	}
	return f
}

var udpConfig = &subnet.Config{Range: subnet.Range{Network: netip.MustParsePrefix("10.5.0.0/16")}, BackendType: "udp"}

var onlyIPv6Config = &subnet.Config{IPv6: subnet.Range{Network: netip.MustParsePrefix("fd00:5::/48"), SubnetLen: 64}, BackendType: "host-gw"}

// finds expects a warning with these words, none if words is empty, and that the
// warning's fix ends it.
func (h firewallHost) finds(rules, words string) {
	h.Helper()
	f := h.check(udpConfig)
	if words == "" {
		if f.Verdict != verdictOK {
			h.Errorf("%s: %+v", rules, f)
		}
		return
	}
	if f.Verdict != verdictWarn || !strings.Contains(f.Found, words) || !strings.Contains(f.Found, "policy drop") {
		h.Errorf("%s: %+v, want a warning with %q", rules, f, words)
		return
	}
	h.run("sh", "-c", f.Fix)
	if f := h.check(udpConfig); f.Verdict != verdictOK {
		h.Errorf("%s: after the fix %+v", rules, f)
	}
}

// nft(8) makes a base chain at a hook with a policy and rules; x is another chain
// of its table.
func TestFirewallPolicies(t *testing.T) {
	h := newFirewallHost(t)
	const input, forward = "UDP port 8285", "the network 10.5.0.0/16"
	for _, test := range []struct{ table, hook, policy, in, x, words string }{
		{"inet t", "input", "drop", "", "", input},
		{"ip t", "input", "drop", "", "", input},
		{"ip6 t", "input", "drop", "", "", ""},
		{"bridge t", "input", "drop", "", "", ""},
		{"inet t", "input", "accept", "udp dport 8285 drop", "", ""},
		{"inet t", "output", "drop", "", "", ""},
		{"inet t", "input", "drop", "udp dport 8285 accept", "", ""},
		{"inet t", "input", "drop", "udp dport 8285 drop", "", input},
		{"inet t", "input", "drop", "udp dport != 8285 accept", "", input},
		{"inet t", "input", "drop", "udp dport 8286 accept", "", input},
		{"inet t", "input", "drop", "ct state established accept; iifname lo accept", "", input},
		{"inet t", "input", "drop", "jump x", "udp dport 8285 counter accept", ""},
		{"inet t", "forward", "drop", "", "", forward},
		{"ip t", "forward", "drop", "", "", forward},
		{"ip6 t", "forward", "drop", "", "", ""},
		{"inet t", "forward", "accept", "ip saddr 10.5.0.0/16 drop", "", ""},
		{"inet t", "forward", "drop", "ip saddr 10.5.0.0/16 accept", "", ""},
		{"inet t", "forward", "drop", "jump x", "ip daddr 10.5.0.0/16 accept", ""},
		{"inet t", "forward", "drop", "ip saddr 10.6.0.0/16 accept", "", forward},
		{"inet t", "forward", "drop", "tcp dport 2565 accept", "", forward}, // 0x0a05
	} {
		h.run("nft", "add table "+test.table+"; add chain "+test.table+" x; add chain "+test.table+
			" base { type filter hook "+test.hook+" priority 0; policy "+test.policy+"; }")
		for chain, rules := range map[string]string{"x": test.x, "base": test.in} {
			for rule := range strings.SplitSeq(rules, "; ") {
				if rule != "" {
					h.run("nft", "add rule "+test.table+" "+chain+" "+rule)
				}
			}
		}
		h.finds(strings.Join([]string{test.table, test.hook, test.policy, test.in, test.x}, " | "), test.words)
		h.run("nft", "delete table "+test.table)
	}
}

// IPv6 needs neighbour discovery beside the port, and its network at forward.
func TestFirewallPoliciesOfIPv6(t *testing.T) {
	h := newFirewallHost(t)
	config := *onlyIPv6Config
	config.BackendType = "udp"
	for _, test := range []struct{ table, hook, rules, words string }{
		{"ip6 t", "input", "", "UDP port 8285"},
		{"ip6 t", "input", "udp dport 8285 accept", "ICMPv6"},
		{"inet t", "input", "udp dport 8285 accept; ct state established accept; tcp dport 58 accept", "ICMPv6"},
		{"ip6 t", "input", "udp dport 8285 accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept", ""},
		{"inet t", "input", "udp dport 8285 accept; meta l4proto icmpv6 accept", ""},
		{"ip t", "input", "", ""},
		{"ip6 t", "forward", "", "the network fd00:5::/48"},
		{"inet t", "forward", "ip6 saddr fd00:5::/48 accept", ""},
		{"inet t", "forward", "ip6 saddr fd00:6::/48 accept", "the network fd00:5::/48"},
		{"ip t", "forward", "", ""},
	} {
		h.run("nft", "add table "+test.table+"; add chain "+test.table+" base { type filter hook "+test.hook+" priority 0; policy drop; }")
		for rule := range strings.SplitSeq(test.rules, "; ") {
			if rule != "" {
				h.run("nft", "add rule "+test.table+" base "+rule)
			}
		}
		f := h.check(&config)
		if test.words == "" != (f.Verdict == verdictOK) || !strings.Contains(f.Found, test.words) {
			t.Errorf("%+v: %+v", test, f)
		}
		for range 2 { // UDP port and ICMPv6
			if f.Fix != "" {
				h.run("sh", "-c", f.Fix)
				f = h.check(&config)
			}
		}
		if f.Verdict != verdictOK {
			t.Errorf("%+v: after the fix %+v", test, f)
		}
		h.run("nft", "delete table "+test.table)
	}
}

func TestFirewallPoliciesOfIPTables(t *testing.T) {
	h := newFirewallHost(t)
	for _, test := range []struct{ args, words string }{
		{"-P INPUT DROP", "the chain INPUT of the table filter"},
		{"-A INPUT -p tcp --dport 22 -j ACCEPT", ""}, // with the fix's rule
		{"-P FORWARD DROP", "the chain FORWARD of the table filter"},
		{"-F", "the chain INPUT of the table filter"},
		{"-A FORWARD -d 10.5.0.0/16 -m comment --comment flannel -j ACCEPT", ""},
		{"-F", "the chain INPUT of the table filter"},
	} {
		h.run("iptables-nft", strings.Fields(test.args)...)
		if test.args == "-F" { // the other chain's rule stays away
			h.run("iptables-nft", "-A", "FORWARD", "-s", "10.5.0.0/16", "-j", "ACCEPT")
		}
		h.finds("iptables "+test.args, test.words)
	}
}

// A backend without a port needs no rule at input. An unknown network, and one of IPv6
// alone, needs none of IPv4 at forward. The last configuration of a hook needs one.
func TestFirewallWithoutPortOrNetwork(t *testing.T) {
	h := newFirewallHost(t)
	routed := &subnet.Config{Range: udpConfig.Range, BackendType: "host-gw"}
	for hook, configs := range map[string][]*subnet.Config{
		"input":   {routed, udpConfig},
		"forward": {nil, onlyIPv6Config, routed},
	} {
		h.run("nft", "add table ip t; add chain ip t base { type filter hook "+hook+" priority 0; policy drop; }")
		for i, c := range configs {
			want := verdictOK
			if i == len(configs)-1 {
				want = verdictWarn
			}
			if f := h.check(c); f.Verdict != want {
				t.Errorf("%s, configuration %d: %+v, want %s", hook, i, f, want)
			}
		}
		h.run("nft", "delete table ip t")
	}
}
