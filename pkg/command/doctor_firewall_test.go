package command

import (
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestFirewallReadsUDPAlone: a rule for the same port of TCP drops none of our packets.
func TestFirewallReadsUDPAlone(t *testing.T) {
	for protocol, want := range map[byte]int{unix.IPPROTO_UDP: 8285, unix.IPPROTO_TCP: -1} {
		does := decide(&nftables.Rule{Exprs: []expr.Any{ // as nft(8) makes them
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{8285 >> 8, 8285 & 0xff}},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
		if does != (decision{want, want, expr.VerdictDrop, false}) {
			t.Errorf("protocol %d: %+v; want port %d dropped", protocol, does, want)
		}
	}
}

// TestFirewallReadsRules has nft(8) and iptables-nft(8) make the rules.
func TestFirewallReadsRules(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := h.Command(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	run("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }")
	drop, accept := expr.VerdictDrop, expr.VerdictAccept
	for rule, want := range map[string]decision{
		"udp dport 8285 drop":                                    {8285, 8285, drop, false},
		"meta nfproto ipv4 udp dport 8285 reject":                {8285, 8285, drop, false},
		"ip protocol udp udp dport 8285 accept":                  {8285, 8285, accept, false},
		"ip saddr 192.0.2.9 udp dport 8285 drop":                 {8285, 8285, drop, true},
		"udp dport 8285 iifname eth0 counter drop":               {8285, 8285, drop, true},
		"ip saddr { 192.0.2.9, 192.0.2.10 } udp dport 8285 drop": {8285, 8285, drop, true},
		"udp dport 8000-9000 drop":                               {8000, 9000, drop, false},
		"tcp dport 8285 drop":                                    {-1, -1, drop, false},
	} {
		run("nft", "flush chain inet t c; add rule inet t c "+rule)
		if got := decideOnly(t, h, nftables.TableFamilyINet, "t", "c"); got != want {
			t.Errorf("%s: %+v, want %+v", rule, got, want)
		}
	}
	for args, want := range map[string]decision{
		"-p udp --dport 8285 -j DROP":              {8285, 8285, drop, false},
		"-p udp --dport 8000:9000 -j REJECT":       {8000, 9000, drop, false},
		"-s 192.0.2.9 -p udp --dport 8285 -j DROP": {8285, 8285, drop, true},
		"-p udp --dport 8285 -i eth0 -j ACCEPT":    {8285, 8285, accept, true},
	} {
		run("iptables-nft", "-F", "INPUT")
		run("iptables-nft", append([]string{"-A", "INPUT"}, strings.Fields(args)...)...)
		if got := decideOnly(t, h, nftables.TableFamilyIPv4, "filter", "INPUT"); got != want {
			t.Errorf("iptables %s: %+v, want %+v", args, got, want)
		}
	}
}

// decideOnly is the decision of the only rule in a chain of the host.
func decideOnly(t *testing.T, h *netnstest.Host, family nftables.TableFamily, table, chain string) decision {
	t.Helper()
	var rules []*nftables.Rule
	if err := h.Do(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		tbl := &nftables.Table{Family: family, Name: table}
		rules, err = conn.GetRules(tbl, &nftables.Chain{Table: tbl, Name: chain})
		return err
	}); err != nil || len(rules) != 1 {
		t.Fatalf("%d rules, %v", len(rules), err)
	}
	return decide(rules[0])
}
