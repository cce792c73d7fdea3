package bpf

import (
	"net/netip"
	"strings"
	"testing"
)

// A container's mark is about its packet. The datagram takes the route of packets
// without a mark, as the socket's does.
func TestMark(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	run(t, a.Host, "sh", "-c", "ip rule add fwmark 7 table 100 && ip route add default via 192.168.77.99 table 100")
	run(t, a.Host, "nft", "add table ip m; add chain ip m out { type filter hook postrouting priority 0; };"+
		"add rule ip m out oifname flannel0 meta mark set 7 counter")
	run(t, b.Host, "nft", "add table ip m; add chain ip m in { type filter hook prerouting priority 0; };"+
		"add rule ip m in iifname flannel0 meta mark 7 counter")
	device := listenInner(b)
	a.say(netip.AddrPortFrom(a.inner(), echoPort), b.inner(), 0, "marked")
	if _, text := device.receive(t); text != "marked" {
		t.Errorf("received %q", text)
	}
	untouched(t, a, b)
	if rules := run(t, a.Host, "nft", "list", "table", "ip", "m"); strings.Contains(rules, "packets 0") {
		t.Errorf("no packet was marked:\n%s", rules)
	}
	if rules := run(t, b.Host, "nft", "list", "table", "ip", "m"); !strings.Contains(rules, "packets 0") {
		t.Errorf("the mark reached the other host:\n%s", rules)
	}
}
