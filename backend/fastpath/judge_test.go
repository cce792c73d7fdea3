package fastpath

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/netnstest"
)

// TestJudge has the kernel read rules back, since they come as expressions that
// no rule set shows.
func TestJudge(t *testing.T) {
	const filter = "table ip user { chain c { type filter hook forward priority filter; %; }; }"
	for _, test := range []struct {
		name, script string
		iptables     []string
		// established and fresh say what is found for flows with and without a reply.
		established, fresh string
	}{
		{name: "nothing"},
		{name: "accept and drop", script: "ip saddr 10.5.0.0/16 tcp dport 80 accept; oifname flannel0 udp dport 53 drop"},
		{name: "limit", script: "limit rate 10/second accept", established: "limit", fresh: "limit"},
		{name: "limit of new flows", script: "ct state new limit rate 10/second accept", fresh: "limit"},
		{name: "limit behind established", script: "ct state established,related accept; limit rate 10/second accept", fresh: "limit"},
		{name: "limit behind accept of all", script: "accept; limit rate 10/second accept"},
		{name: "limit of invalid", script: "ct state invalid limit rate 1/second log"},
		{name: "limit of another network", script: "ip saddr 192.168.0.0/16 limit rate 10/second accept"},
		{name: "limit of all but the network", script: "ip saddr != 10.5.0.0/16 limit rate 10/second accept"},
		{name: "limit of a part of the network", script: "ip daddr 10.5.2.7 limit rate 10/second accept", established: "limit", fresh: "limit"},
		{name: "limit of all networks", script: "ip daddr 10.0.0.0/8 limit rate 10/second accept", established: "limit", fresh: "limit"},
		{name: "limit at another interface", script: `iifname "eth*" limit rate 10/second accept`},
		{name: "limit at a port", script: `iifname "dock*" limit rate 10/second accept`, established: "limit", fresh: "limit"},
		{name: "limit of ICMP", script: "ip protocol icmp limit rate 10/second accept"},
		{name: "limit of SYN", script: "tcp flags & (syn | rst | fin) == syn limit rate 10/second accept"},
		{name: "PSH", script: "tcp flags & psh == psh drop", established: "tcp flags", fresh: "tcp flags"},
		{name: "nothing but ACK", script: "tcp flags == ack drop", established: "tcp flags", fresh: "tcp flags"},
		{name: "flags in a set", script: "tcp flags { ack, fin } drop", established: "tcp flags", fresh: "tcp flags"},
		{name: "iptables PSH", iptables: []string{"-A FORWARD -p tcp --tcp-flags PSH PSH -j DROP"}, established: "tcp flags", fresh: "tcp flags"},
		{name: "iptables not PSH", iptables: []string{"-A FORWARD -p tcp ! --tcp-flags PSH PSH -j DROP"}, established: "tcp flags", fresh: "tcp flags"},
		{name: "iptables christmas tree", iptables: []string{"-A FORWARD -p tcp --tcp-flags ALL FIN,PSH,URG -j DROP"}},
		{name: "iptables TCP option", iptables: []string{"-A FORWARD -p tcp --tcp-option 8 -j DROP"}, established: "tcp option", fresh: "tcp option"},
		{name: "TTL in a concatenation", script: "ip saddr . ip ttl { 10.5.1.2 . 3 } drop", established: "set", fresh: "set"},
		{name: "set", script: "table ip user { set s { type ipv4_addr; elements = { 10.5.1.2 }; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }"},
		{name: "set with counters", script: "table ip user { set s { type ipv4_addr; counter; elements = { 10.5.1.2 }; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }"},
		{
			name:        "set whose elements expire",
			script:      "table ip user { set s { type ipv4_addr; flags timeout; elements = { 10.5.1.2 timeout 1h }; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }",
			established: "set with timeouts", fresh: "set with timeouts",
		},
		{
			name:        "set that rules change",
			script:      "table ip user { set s { type ipv4_addr; size 100; flags dynamic; }; chain c { type filter hook forward priority 0; ip saddr @s drop; ct state new tcp dport 23 add @s { ip saddr }; }; }",
			established: "set with dynamic elements", fresh: "set with dynamic elements",
		},
		{
			name:        "set that limits",
			script:      "table ip user { set s { type ipv4_addr; size 100; limit rate 10/second; elements = { 10.5.1.2 }; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }",
			established: "set with limit", fresh: "set with limit",
		},
		{name: "quota", script: "quota over 10 mbytes drop", established: "quota", fresh: "quota"},
		{name: "log", script: "log prefix \"x\"", established: "log", fresh: "log"},
		{name: "mark", script: "meta mark set 7", established: "meta set", fresh: "meta set"},
		{name: "conntrack mark", script: "ct mark set 7", established: "ct set", fresh: "ct set"},
		{name: "DSCP", script: "ip dscp set ef", established: "payload set", fresh: "payload set"},
		{name: "by DSCP", script: "ip dscp ef drop", established: "comparison", fresh: "comparison"},
		{name: "by length", script: "meta length > 1000 drop", established: "byteorder", fresh: "byteorder"},
		{name: "by TTL", script: "ip ttl < 3 drop", established: "comparison", fresh: "comparison"},
		{name: "by chance", script: "numgen random mod 2 0 drop", established: "numgen", fresh: "numgen"},
		{name: "by bytes of the flow", script: "ct bytes > 1000 drop", established: "byteorder", fresh: "byteorder"},
		{name: "by conntrack mark", script: "ct mark 7 drop", established: "ct mark", fresh: "ct mark"},
		{name: "by other bits of the conntrack mark", script: "ct mark and 0xff == 7 drop"},
		{name: "iptables by conntrack mark", iptables: []string{"-A FORWARD -m connmark --mark 7 -j DROP"}, established: "connmark", fresh: "connmark"},
		{name: "iptables by other bits of the conntrack mark", iptables: []string{"-A FORWARD -m connmark --mark 7/0xff -j DROP"}},
		{name: "conntrack mark of first packets", script: "ct state new ct mark set 0x10000000", established: "ct mark set", fresh: "ct set"},
		{name: "other bits of first packets", script: "ct state new ct mark set 7", fresh: "ct set"},
		{name: "one more bit of first packets", script: "ct state new ct mark set ct mark or 1", fresh: "ct set"},
		{name: "mark of first packets saved", script: "ct state new ct mark set meta mark", established: "ct mark set", fresh: "ct set"},
		{name: "other bits of first packets saved", script: "ct state new ct mark set meta mark and 0xff", fresh: "ct set"},
		{name: "conntrack mark of SYN", script: "tcp flags syn ct state new ct mark set 0x20000000", established: "ct mark set"},
		{name: "conntrack mark of nat", script: "table ip user { chain c { type nat hook prerouting priority dstnat; ct mark set 0x20000000; }; }", established: "ct mark set"},
		{name: "other bits of nat", script: "table ip user { chain c { type nat hook prerouting priority dstnat; ct mark set 7; }; }"},
		{name: "iptables conntrack mark of nat", iptables: []string{"-t nat -A PREROUTING -j CONNMARK --set-xmark 0x10000000/0x10000000"}, established: "CONNMARK"},
		{name: "iptables other bits of nat", iptables: []string{"-t nat -A PREROUTING -j CONNMARK --set-xmark 1/1"}},
		{name: "iptables mark of nat saved", iptables: []string{"-t nat -A PREROUTING -j CONNMARK --save-mark"}, established: "CONNMARK"},
		{name: "iptables other bits of nat saved", iptables: []string{"-t nat -A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff"}},
		{name: "notrack", script: "notrack"},
		{
			name:   "in a chain that is gone to",
			script: "table ip user { chain far { limit rate 1/second accept; }; chain near { ct state new jump far; }; chain c { type filter hook forward priority 0; jump near; }; }",
			fresh:  "limit",
		},
		{name: "in a chain without a way to it", script: "table ip user { chain far { limit rate 1/second accept; }; }"},
		{
			name:        "in a verdict map",
			script:      "table ip user { chain far { limit rate 1/second accept; }; chain c { type filter hook forward priority 0; tcp dport vmap { 80 : jump far }; }; }",
			established: "limit", fresh: "limit",
		},
		{name: "of nat", script: "table ip user { chain c { type nat hook postrouting priority 100; limit rate 1/second masquerade; }; }"},
		{name: "at input", script: "table ip user { chain c { type filter hook input priority 0; limit rate 1/second accept; }; }"},
		{name: "of IPv6", script: "table ip6 user { chain c { type filter hook forward priority 0; limit rate 1/second accept; }; }"},
		{name: "of inet for IPv6", script: "table inet user { chain c { type filter hook forward priority 0; meta nfproto ipv6 limit rate 1/second accept; }; }"},
		{name: "of bridge", script: "table bridge user { chain c { type filter hook postrouting priority 0; limit rate 1/second accept; }; }", established: "limit", fresh: "limit"},
		{name: "of netdev", script: "table netdev user { chain c { type filter hook ingress device docker0 priority 0; limit rate 1/second accept; }; }", established: "limit", fresh: "limit"},
		{name: "of netdev elsewhere", script: "table netdev user { chain c { type filter hook ingress device lo priority 0; limit rate 1/second accept; }; }"},
		{name: "tproxy", script: "table ip user { chain c { type filter hook prerouting priority mangle; meta l4proto tcp tproxy to :8080; }; }", established: "tproxy", fresh: "tproxy"},

		{name: "iptables accept", iptables: []string{"-A FORWARD -i docker0 -o flannel0 -m comment --comment x -j ACCEPT"}},
		{name: "iptables limit", iptables: []string{"-A FORWARD -m limit --limit 1/s -j ACCEPT"}, established: "limit", fresh: "limit"},
		{
			name:     "iptables of kube-proxy and Docker",
			iptables: []string{"-N KUBE-FORWARD", "-A FORWARD -j KUBE-FORWARD", "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP", "-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT", "-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", "-A FORWARD -o docker0 -m addrtype --dst-type LOCAL -j ACCEPT", "-A FORWARD -p tcp --dport 80 -m multiport --sports 1,2 -j REJECT"},
		},
		{name: "iptables mark", iptables: []string{"-t mangle -A PREROUTING -i docker0 -j MARK --set-mark 1"}, established: "MARK", fresh: "MARK"},
		{name: "iptables mark of new flows", iptables: []string{"-t mangle -A PREROUTING -m conntrack ! --ctstate ESTABLISHED -j MARK --set-mark 1"}, fresh: "MARK"},
		{name: "iptables TCPMSS", iptables: []string{"-t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"}},
		{name: "iptables statistic", iptables: []string{"-A FORWARD -m statistic --mode random --probability 0.5 -j DROP"}, established: "statistic", fresh: "statistic"},
	} {
		t.Run(test.name, func(t *testing.T) {
			netnstest.Require(t)
			h := &host{Host: netnstest.New(t).Namespace("a"), t: t}
			h.Bridge(bridgeName, netip.MustParsePrefix("10.5.1.1/24"), 0)
			switch {
			case strings.HasPrefix(test.script, "table"):
				h.nft(test.script)
			case test.script != "":
				h.nft(strings.ReplaceAll(filter, "%", test.script))
			}
			for _, rule := range test.iptables {
				h.Exec("iptables-nft " + rule)
			}
			var reader *hostrules.Reader
			h.must(h.Do(func() (err error) { reader, err = hostrules.Open(); return err }))
			defer reader.Close()
			rules, err := reader.Ruleset()
			h.must(err)
			found := judge(rules, scene{network: network, marks: MarksOf(0x30000000), outer: []string{deviceName}, names: []string{deviceName, bridgeName}})
			check(t, "flows with a reply", found[stateEstablished], test.established)
			check(t, "flows without a reply", found[stateNew], test.fresh)
		})
	}
}

func check(t *testing.T, what string, found []string, want string) {
	t.Helper()
	if want == "" && len(found) > 0 || want != "" && !slices.ContainsFunc(found, func(s string) bool { return strings.Contains(s, `"`+want+`"`) }) {
		t.Errorf("%s: found %q, want %q", what, found, want)
	}
}
