package hostrules

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

var (
	local    = netip.MustParseAddr("192.168.77.1")
	peer     = netip.MustParseAddr("192.168.77.2")
	ours     = Datagrams{Local: local, Port: 8285, Peers: []netip.Addr{netip.MustParseAddr("192.168.77.3"), peer}}
	patience = 20 * time.Second
)

// reader opens a Reader on a host of its own; run runs a command there.
func reader(t *testing.T) (r *Reader, run func(command string)) {
	t.Helper()
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("h")
	if err := h.Do(func() (err error) { r, err = Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, func(command string) {
		t.Helper()
		if out, err := h.Command(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
}

func find(t *testing.T, r *Reader) string {
	t.Helper()
	rule, err := r.Find(ours)
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

const (
	esp     = " tmpl src 192.168.77.1 dst 192.168.77.2 proto esp mode transport"
	espBack = " tmpl src 192.168.77.2 dst 192.168.77.1 proto esp mode transport"
)

func TestIPsec(t *testing.T) {
	for command, want := range map[string]string{
		"true": "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out" + esp:                                   "demands esp",
		"ip xfrm policy add src 192.168.77.2 dst 192.168.77.1 dir in" + espBack:                                "demands esp",
		"ip xfrm policy add src 0.0.0.0/0 dst 192.168.77.0/24 dir out" + esp:                                   "demands esp",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 proto udp dport 8285 dir out" + esp:              "demands esp",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 proto udp sport 8285 dir out" + esp:              "demands esp",
		"ip xfrm policy add src 0.0.0.0/0 dst 10.0.0.0/8 proto udp dport 8285 dir out" + esp:                   "demands esp",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out action block":                            "blocks",
		"ip xfrm policy add src 192.168.77.1 dst 10.0.0.0/8 dir out" + esp:                                     "",
		"ip xfrm policy add src 10.0.0.0/8 dst 192.168.77.2 dir out" + esp:                                     "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 proto tcp dir out" + esp:                         "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 proto udp dport 53 dir out" + esp:                "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir fwd" + esp:                                   "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out mark 7" + esp:                            "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out if_id 7" + esp:                           "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out":                                         "",
		"ip xfrm policy setdefault out block":                                                                  "without a policy",
		"ip xfrm policy setdefault in block":                                                                   "without a policy",
		"ip xfrm policy setdefault fwd block":                                                                  "",
		"ip xfrm policy setdefault out block; ip xfrm policy add src 192.168.77.1 dst 192.168.77.0/24 dir out": "",
		"ip xfrm policy add src 0.0.0.0/0 dst 192.168.77.0/24 dir out priority 2" + esp + "; " +
			"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 8285 dir out priority 1": "",
		"ip xfrm policy add src 0.0.0.0/0 dst 192.168.77.0/24 dir out priority 1" + esp + "; " +
			"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp dport 8285 dir out priority 2": "demands esp",
		"ip xfrm policy add src 0.0.0.0/0 dst 192.168.77.0/24 dir out priority 2" + esp + "; " +
			"ip xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 proto udp sport 1 dir out priority 1": "demands esp",
	} {
		t.Run(command, func(t *testing.T) {
			r, run := reader(t)
			run(command)
			if got := find(t, r); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

func TestNetfilter(t *testing.T) {
	const table = "nft 'add table ip f; add set ip f blocked { type ipv4_addr; flags interval; }; add chain ip f other; " +
		"add chain ip f in { type filter hook input priority 0; }; add chain ip f out { type route hook output priority 0; }; " +
		"add chain ip f pre { type filter hook prerouting priority -300; }; add chain ip f post { type nat hook postrouting priority 100; }; " +
		"add chain ip f forw { type filter hook forward priority 0; }; add rule ip f in jump other; "
	for rule, want := range map[string]string{
		table + "'": "",
		table + "add rule ip f in udp dport 8285 drop'":                                                            "drop",
		table + "add rule ip f in udp dport 8000-9000 counter drop'":                                               "drop",
		table + "add rule ip f in udp dport { 53, 8285 } reject'":                                                  "reject",
		table + "add rule ip f in udp dport vmap { 53 : accept, 8285 : drop }'":                                    "map",
		table + "add rule ip f in ip saddr 192.168.77.2 drop'":                                                     "drop",
		table + "add rule ip f in ip saddr 192.168.77.0/24 udp dport 8285 drop'":                                   "drop",
		table + "add rule ip f in ip saddr 192.168.76.0/23 drop'":                                                  "drop",
		table + "add element ip f blocked { 192.168.77.2-192.168.77.9 }; add rule ip f in ip saddr @blocked drop'": "drop",
		table + "add rule ip f other udp dport 8285 drop'":                                                         "drop",
		table + "add rule ip f in udp dport 8285 jump other; add rule ip f other limit rate 1/second drop'":        "drop",
		table + "add rule ip f pre udp dport 8285 notrack'":                                                        "notrack",
		table + "add rule ip f out ip daddr 192.168.77.2 meta mark set 7'":                                         "mark",
		table + "add rule ip f out udp dport 8285 ip dscp set cs1'":                                                "changed header",
		table + "add rule ip f post ip daddr 192.168.77.0/24 masquerade'":                                          "masq",

		table + "add rule ip f in udp dport 8285 accept'":                                                            "",
		table + "add rule ip f in meta iifname vmap { eth0 : jump other }; add rule ip f other udp dport 8285 drop'": "drop",
		table + "add rule ip f in udp dport vmap { 53 : drop }'":                                                     "",
		table + "add rule ip f in udp dport > 9000 drop'":                                                            "",
		table + "add rule ip f in udp dport 53 drop'":                                                                "",
		table + "add rule ip f in udp dport { 53, 67-68 } drop'":                                                     "",
		table + "add rule ip f in udp dport != 8285 drop'":                                                           "",
		table + "add rule ip f in tcp dport 8285 drop'":                                                              "",
		table + "add rule ip f in ip saddr 10.0.0.0/8 drop'":                                                         "",
		table + "add rule ip f in ip saddr 192.168.77.1 drop'":                                                       "", // our own, as of spoofed packets
		table + "add rule ip f out ip daddr 192.168.77.1 drop'":                                                      "",
		table + "add rule ip f in ct state invalid drop'":                                                            "",
		table + "add rule ip f in meta nftrace set 1'":                                                               "",
		table + "add rule ip f forw ip saddr 192.168.77.2 drop'":                                                     "",
		table + "add rule ip f post ip saddr 172.17.0.0/16 oifname != docker0 masquerade'":                           "",
		table + "add element ip f blocked { 10.0.0.0/8 }; add rule ip f in ip saddr @blocked drop'":                  "",

		"nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; add rule inet f in udp dport 8285 drop'":                   "drop",
		"nft 'add table netdev f; add chain netdev f in { type filter hook ingress device lo priority 0; }; add rule netdev f in udp dport 8285 drop'": "drop",
		"nft 'add table ip6 f; add chain ip6 f in { type filter hook input priority 0; }; add rule ip6 f in udp dport 8285 drop'":                      "",

		table + "add rule ip f pre meta l4proto udp udp dport 8285 tproxy to :1 accept'":                                                           "tproxy",
		table + "add rule ip f in reject'":                                                                                                         "reject",
		table + "add rule ip f in meta l4proto udp drop'":                                                                                          "drop",
		table + "add rule ip f in jump other; add rule ip f other counter drop'":                                                                   "drop",
		table + "add rule ip f in iifname lo accept; add rule ip f in iif lo accept; add rule ip f in tcp dport 22 accept; add rule ip f in drop'": "drop",
		table + "add rule ip f in udp dport 8285 accept; add rule ip f in drop'":                                                                   "",
		table + "add rule ip f in ct state established accept; add rule ip f in drop'":                                                             "",
		table + "add rule ip f in ip saddr 192.168.77.2 accept; add rule ip f in drop'":                                                            "",
		table + "add rule ip f in iifname eth0 accept; add rule ip f in drop'":                                                                     "",
		table + "add rule ip f in iifname eth0 goto other; add rule ip f in drop'":                                                                 "",
		table + "add rule ip f in iifname vmap { eth0 : accept }; add rule ip f in drop'":                                                          "",
		table + "add rule ip f other iifname eth0 return; add rule ip f other drop'":                                                               "",
		table + "add rule ip f in accept; add rule ip f in drop'":                                                                                  "",
		table + "add rule ip f in limit rate 10/second accept; add rule ip f in drop'":                                                             "",
		table + "add rule ip f forw drop'":                                                                                                         "",
		table + "add chain ip f in { policy drop; }'":                                                                                              "policy",
		table + "add chain ip f out { policy drop; }'":                                                                                             "policy",
		table + "add chain ip f in { policy drop; }; add rule ip f in tcp dport 22 accept'":                                                        "policy",
		table + "add chain ip f in { policy drop; }; add rule ip f other udp dport 8285 accept'":                                                   "",
		table + "add chain ip f in { policy drop; }; add rule ip f other accept'":                                                                  "",
		table + "add chain ip f in { policy drop; }; add rule ip f in ct state established accept'":                                                "",
		table + "add chain ip f forw { policy drop; }'":                                                                                            "",

		"nft 'add table inet f; add chain inet f in { type filter hook input priority 0; policy drop; }; add rule inet f in meta nfproto ipv6 accept'": "policy",
		"iptables-nft -P INPUT DROP": "policy",
		"iptables-nft -P INPUT DROP; iptables-nft -A INPUT -p udp -m comment --comment x -m udp --dport 8285 -j ACCEPT": "",
		"iptables-nft -A INPUT -j REJECT": "REJECT",
		"iptables-nft -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; iptables-nft -A INPUT -j REJECT": "",

		"iptables-nft -A INPUT -p udp --dport 8285 -j DROP":                              "drop",
		"iptables-nft -A INPUT -p udp -m multiport --dports 53,8000:9000 -j DROP":        "drop",
		"iptables-nft -A INPUT -s 192.168.77.2 -j REJECT":                                "R",
		"iptables-nft -t mangle -A OUTPUT -d 192.168.77.2 -j MARK --set-mark 7":          "MARK",
		"iptables-nft -t raw -A PREROUTING -p udp --dport 8285 -j CT --notrack":          "CT",
		"iptables-nft -A INPUT -p udp --dport 8285 -j ACCEPT":                            "",
		"iptables-nft -A INPUT -p udp -m multiport --dports 53,67 -j DROP":               "",
		"iptables-nft -A INPUT -p udp -m udp --dport 53 -j DROP":                         "",
		"iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE": "",
	} {
		t.Run(strings.TrimPrefix(rule, table), func(t *testing.T) {
			r, run := reader(t)
			run(rule)
			if got := find(t, r); (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

// Rules for datagrams of IPv6 are found by the header of that.
func TestIPv6(t *testing.T) {
	const (
		table = "nft 'add table ip6 f; add set ip6 f blocked { type ipv6_addr; flags interval; }; " +
			"add chain ip6 f in { type filter hook input priority 0; }; add chain ip6 f out { type route hook output priority 0; }; " +
			"add chain ip6 f post { type nat hook postrouting priority 100; }; add chain ip6 f forw { type filter hook forward priority 0; }; "
		inet = "nft 'add table inet f; add chain inet f in { type filter hook input priority 0; }; "
		esp  = " tmpl src fd00:77::1 dst fd00:77::2 proto esp mode transport"
	)
	ours := Datagrams{
		Local: netip.MustParseAddr("fd00:77::1"), Port: 8285,
		Peers: []netip.Addr{{}, peer, netip.MustParseAddr("fd00:77::3"), netip.MustParseAddr("fd00:77::2")},
	}
	for command, want := range map[string]string{
		table + "'": "",
		table + "add rule ip6 f in udp dport 8285 drop'":                                                          "drop",
		table + "add rule ip6 f in udp dport { 53, 8285 } reject'":                                                "reject",
		table + "add rule ip6 f in ip6 saddr fd00:77::2 drop'":                                                    "drop",
		table + "add rule ip6 f in ip6 saddr fd00:77::/64 drop'":                                                  "drop",
		table + "add rule ip6 f in ip6 saddr fd00:70::/28 drop'":                                                  "drop",
		table + "add element ip6 f blocked { fd00:77::2-fd00:77::9 }; add rule ip6 f in ip6 saddr @blocked drop'": "drop",
		table + "add rule ip6 f out ip6 daddr fd00:77::2 meta mark set 7'":                                        "mark",
		table + "add rule ip6 f post ip6 daddr fd00:77::/64 masquerade'":                                          "masq",
		table + "add rule ip6 f in meta l4proto udp drop'":                                                        "drop",
		table + "add rule ip6 f in ip6 nexthdr udp drop'":                                                         "drop",
		table + "add chain ip6 f in { policy drop; }'":                                                            "policy",
		table + "add chain ip6 f in { policy drop; }; add rule ip6 f in meta l4proto ipv6-icmp accept'":           "policy",
		table + "add chain ip6 f in { policy drop; }; add rule ip6 f in udp dport 8285 accept'":                   "",
		table + "add rule ip6 f in ip6 saddr fd00:78::/64 drop'":                                                  "",
		table + "add rule ip6 f in ip6 saddr fd00:77::1 drop'":                                                    "", // our own, as of spoofed packets
		table + "add rule ip6 f in ip6 nexthdr tcp drop'":                                                         "",
		table + "add rule ip6 f forw ip6 saddr fd00:77::2 drop'":                                                  "",

		inet + "add rule inet f in udp dport 8285 drop'":                                                                     "drop",
		inet + "add rule inet f in ip6 saddr fd00:77::2 drop'":                                                               "drop",
		inet + "add rule inet f in meta nfproto ipv6 drop'":                                                                  "drop",
		inet + "add rule inet f in meta nfproto ipv4 drop'":                                                                  "",
		inet + "add rule inet f in ip saddr 192.168.77.2 drop'":                                                              "",
		"ip6tables-nft -A INPUT -p udp --dport 8285 -j DROP":                                                                 "drop",
		"ip6tables-nft -A INPUT -s fd00:77::2 -j REJECT":                                                                     "R",
		"iptables-nft -A INPUT -p udp --dport 8285 -j DROP":                                                                  "",
		"ip xfrm policy add src fd00:77::1 dst fd00:77::2 dir out" + esp:                                                     "demands esp",
		"ip xfrm policy add src ::/0 dst fd00:77::/64 dir out" + esp:                                                         "demands esp",
		"ip xfrm policy add src fd00:77::1 dst fd00:78::/64 dir out" + esp:                                                   "",
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out" + strings.ReplaceAll(esp, "fd00:77::", "192.168.77."): "",
		"ip xfrm policy setdefault out block":                                                                                "without a policy",
	} {
		t.Run(strings.TrimPrefix(command, table), func(t *testing.T) {
			r, run := reader(t)
			run(command)
			got, err := r.Find(ours)
			if err != nil || (got == "") != (want == "") || !strings.Contains(got, want) {
				t.Errorf("found %q, %v; want %q", got, err, want)
			}
		})
	}
}

// Rules for one family are not those of the other, and there are none for no address.
func TestOtherFamily(t *testing.T) {
	r, run := reader(t)
	run("nft 'add table ip f; add chain ip f in { type filter hook input priority 0; }; add rule ip f in ip saddr 192.168.77.2 drop'")
	for _, test := range []struct {
		local netip.Addr
		found bool
	}{{local, true}, {netip.IPv6Loopback(), false}, {netip.Addr{}, false}} {
		rule, err := r.Find(Datagrams{Local: test.local, Port: 8285, Peers: []netip.Addr{{}, netip.IPv6Loopback(), peer}})
		if err != nil || (rule != "") != test.found {
			t.Errorf("from %v: found %q, %v", test.local, rule, err)
		}
	}
}

// Each table of legacy iptables is named that the namespace has.
func TestLegacyTables(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("h")
	var before, after []string
	err := h.Do(func() (err error) { before, err = LegacyTables(); return err })
	if out, err := h.Command(t.Context(), "iptables-legacy", "-t", "mangle", "-L").CombinedOutput(); err != nil {
		netnstest.LegacyMangle.Skip(t, string(out))
	}
	err = errors.Join(err, h.Do(func() (err error) { after, err = LegacyTables(); return err }))
	if err != nil || len(before) > 0 || !slices.Equal(after, []string{"mangle"}) {
		t.Errorf("tables %q, then %q, %v", before, after, err)
	}
}

// Run calls after each change of either kind.
func TestRun(t *testing.T) {
	r, run := reader(t)
	changed := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx, nil, func() { changed <- struct{}{} }) }()
	for _, command := range []string{
		"ip xfrm policy add src 192.168.77.1 dst 192.168.77.2 dir out" + esp,
		"ip xfrm policy flush",
		"ip xfrm policy setdefault out block",
		"nft add table ip f",
		"nft delete table ip f",
	} {
		run(command)
		select {
		case <-changed:
		case <-time.After(patience):
			t.Fatalf("no call after %q", command)
		}
		for len(changed) > 0 {
			<-changed
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
