package fastpath

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
)

// dropRule drops what the container of host a has sent or received.
type dropRule struct{ way, rule string }

// dropRules are of each family and tool whose changes the kernel announces.
var dropRules = []dropRule{
	{"sent", "nft ip: type filter hook forward; oifname flannel0"},
	{"received", "nft ip: type filter hook forward; iifname flannel0"},
	{"sent", "nft inet: type filter hook forward; oifname flannel0"},
	{"received", "nft inet: type filter hook forward; iifname flannel0"},
	{"sent", "nft inet: type filter hook ingress device veth-a1; ip saddr 10.5.1.2"},
	{"sent", "nft bridge: type filter hook prerouting; iifname veth-a1 ether type ip"},
	{"sent", "nft bridge: type filter hook input; iifname veth-a1 ether type ip"},
	{"received", "nft bridge: type filter hook output; oifname veth-a1 ether type ip"},
	{"received", "nft bridge: type filter hook postrouting; oifname veth-a1 ether type ip"},
	{"sent", "nft netdev: type filter hook ingress device veth-a1; ip saddr 10.5.1.2"},
	{"sent", "nft netdev: type filter hook ingress device docker0; ip saddr 10.5.1.2"},
	{"sent", "nft netdev: type filter hook egress device flannel0; ip saddr 10.5.1.2"},
	{"received", "nft netdev: type filter hook ingress device flannel0; ip daddr 10.5.1.2"},
	{"received", "nft netdev: type filter hook egress device docker0; ip daddr 10.5.1.2"},
	{"received", "nft netdev: type filter hook egress device veth-a1; ip daddr 10.5.1.2"},
	{"sent", "iptables-nft -t raw: PREROUTING -i docker0"},
	{"sent", "iptables-nft -t filter: FORWARD -o flannel0"},
	{"received", "iptables-nft -t filter: FORWARD -i flannel0"},
	{"received", "iptables-nft -t mangle: POSTROUTING -o docker0"},
}

// uplinkRules are those of hosts without a tunnel.
var uplinkRules = []dropRule{
	{"sent", "nft ip: type filter hook forward; oifname eth0"},
	{"received", "nft ip: type filter hook forward; iifname eth0"},
	{"sent", "nft netdev: type filter hook egress device eth0; ip saddr 10.5.1.2"},
	{"received", "nft netdev: type filter hook ingress device eth0; ip daddr 10.5.1.2"},
	{"received", "nft inet: type filter hook ingress device eth0; ip daddr 10.5.1.2"},
}

// legacyRules are found by the next periodic look. Their table stays after them, and
// keeps the fast path off.
var legacyRules = []dropRule{
	{"sent", "iptables-legacy -t filter: FORWARD -o flannel0"},
	{"received", "iptables-legacy -t filter: FORWARD -i flannel0"},
}

// commands returns those that add a rule and that delete it.
func commands(rule string) (add, undo string) {
	where, what, _ := strings.Cut(rule, ": ")
	if family, nft := strings.CutPrefix(where, "nft "); nft {
		chain, match, _ := strings.Cut(what, "; ")
		return fmt.Sprintf("nft table %s user { chain c { %s priority filter; %s drop; }; }", family, chain, match),
			fmt.Sprintf("nft delete table %s user", family)
	}
	return fmt.Sprintf("%s -I %s -j DROP", where, what), fmt.Sprintf("%s -D %s -j DROP", where, what)
}

// TestRuleAdded adds a rule that drops a flow on the fast path. With the flow's entry
// deleted not one packet more arrives. Without that, none does after the rules have been
// looked at.
func TestRuleAdded(t *testing.T) {
	eachWay(t, func(t *testing.T, direct bool) {
		rules := dropRules
		if direct {
			rules = uplinkRules
		}
		for _, way := range []string{"sent", "received"} {
			t.Run(way, func(t *testing.T) {
				t.Parallel()
				a, b := newRunningBy(t, direct)
				for _, r := range rules {
					if r.way == way {
						t.Run(r.rule+" forget=true", func(t *testing.T) { r.check(t, a, b, true) })
						t.Run(r.rule+" forget=false", func(t *testing.T) { r.check(t, a, b, false) })
					}
				}
			})
		}
	})
}

// TestLegacyRuleAdded has rules that the kernel does not announce.
func TestLegacyRuleAdded(t *testing.T) {
	for _, r := range legacyRules {
		t.Run(r.way, func(t *testing.T) {
			t.Parallel()
			requireTool(t, r.rule)
			a, b := newRunning(t)
			r.check(t, a, b, true)
		})
	}
}

// check adds the rule at a, and deletes it.
func (r dropRule) check(t *testing.T, a, b *host, forget bool) {
	t.Helper()
	add, undo := commands(r.rule)
	f := a.warmFlow(t, b, r.way)
	defer f.close()
	a.Exec(add)
	f.stops(forget)
	a.Exec(undo)
	f.resumes()
}

// requireTool skips the test if the kernel lacks the tables of the rule's tool.
func requireTool(t *testing.T, rule string) {
	t.Helper()
	if !strings.HasPrefix(rule, "iptables-legacy") {
		return
	}
	netnstest.Require(t)
	if out, err := netnstest.New(t).Namespace("probe").Command(t.Context(), "iptables-legacy", "-S").CombinedOutput(); err != nil {
		netnstest.LegacyIPTables.Skip(t, string(out))
	}
}

// TestElementAdded has the set of a rule get a container's address. The kernel announces
// no change of an ipset.
func TestElementAdded(t *testing.T) {
	for _, test := range []struct {
		way, set string
		forget   bool
	}{
		{"sent", "nftables", true}, {"sent", "nftables", false}, {"received", "nftables", true}, {"received", "nftables", false},
		{"sent", "ipset", true}, {"received", "ipset", true},
	} {
		t.Run(fmt.Sprintf("%s %s forget=%v", test.way, test.set, test.forget), func(t *testing.T) {
			t.Parallel()
			a, b := newRunning(t)
			add, del := a.nftSet(test.way)
			if test.set == "ipset" {
				add, del = a.ipset(test.way)
			}
			f := a.warmFlow(t, b, test.way)
			add()
			f.stops(test.forget)
			del()
			f.resumes()
		})
	}
}

// nftSet makes a rule that drops the packets from, or to, the addresses of a set. It
// returns functions that add the container's address and delete it.
func (h *host) nftSet(way string) (add, del func()) {
	h.t.Helper()
	address := map[string]string{"sent": "saddr", "received": "daddr"}[way]
	h.nft("table ip user { set blocked { type ipv4_addr; }; chain c { type filter hook forward priority filter; ip " + address + " @blocked drop; }; }")
	change := func(verb string) func() {
		return func() { h.nft(fmt.Sprintf("%s element ip user blocked { %v }", verb, h.addr())) }
	}
	return change("add"), change("delete")
}

// ipset does so with a set of ipset.
func (h *host) ipset(way string) (add, del func()) {
	h.t.Helper()
	const name = "blocked"
	err := h.Do(func() error { return netlink.IpsetCreate(name, "hash:ip", netlink.IpsetCreateOptions{}) })
	if err != nil {
		netnstest.IPSet.Skip(h.t, err)
	}
	direction := map[string]string{"sent": "src", "received": "dst"}[way]
	h.Exec("iptables-nft -A FORWARD -m set --match-set " + name + " " + direction + " -j DROP")
	change := func(f func(string, *netlink.IPSetEntry) error) func() {
		return func() {
			h.must(h.Do(func() error { return f(name, &netlink.IPSetEntry{IP: net.IP(h.addr().AsSlice())}) }))
		}
	}
	return change(netlink.IpsetAdd), change(netlink.IpsetDel)
}

// directed is one direction of a TCP flow between the containers of two hosts.
type directed struct {
	*testing.T
	at       *host
	mark     uint32 // of the direction at that host
	from, to net.Conn
}

// warmFlow opens a connection and has it take the fast path. It returns the direction
// that h has sent or received.
func (h *host) warmFlow(t *testing.T, peer *host, way string) directed {
	t.Helper()
	s := warm(t, h, peer)
	if way == "received" {
		return directed{t, h, h.marks.Received, s.to, s.from}
	}
	return directed{t, h, h.marks.Sent, s.from, s.to}
}

// close ends the connection, which would send keepalives.
func (d directed) close() {
	d.from.Close()
	d.to.Close()
}

// stops writes some bytes, which must not arrive. With forget the conntrack entries of
// all flows are deleted before, else the rules have been looked at.
func (d directed) stops(forget bool) {
	d.Helper()
	if forget {
		d.at.forget()
	} else {
		d.at.until("the flow has no mark, or the fast path is off", func() bool {
			return d.at.marked(d.mark) == 0 || d.at.path.Status().Containers == 0
		})
	}
	if _, err := d.from.Write([]byte("too late")); err != nil {
		d.Fatal(err)
	}
	silent(d.T, d.to)
}

// resumes waits for the bytes of stops.
func (d directed) resumes() {
	d.Helper()
	if _, err := io.ReadFull(d.to, make([]byte, len("too late"))); err != nil {
		d.Error(err)
	}
}

// TestTranslationAdded adds a rule that translates new connections, while an earlier one
// takes the fast path. The rule takes the next connection at once, and all its packets.
func TestTranslationAdded(t *testing.T) {
	const client = "10.5.1.2"
	for _, test := range []struct {
		at, rule string
		port     uint16 // that the client connects to; the server has 8000
		source   string // that the server sees
	}{
		{"a", "nft table ip user { chain c { type nat hook prerouting priority dstnat; tcp dport 9999 dnat to 10.5.2.2:8000; }; }", 9999, client},
		{"a", "nft table ip user { chain c { type nat hook postrouting priority srcnat; tcp dport 8000 snat to 10.5.1.1; }; }", 8000, "10.5.1.1"},
		{"b", "iptables-nft -t nat -A PREROUTING -i flannel0 -p tcp --dport 9999 -j DNAT --to-destination 10.5.2.2:8000", 9999, client},
		{"b", "iptables-nft -t nat -A POSTROUTING -o docker0 -p tcp --dport 8000 -j MASQUERADE", 8000, "10.5.2.1"},
		{"a", "iptables-legacy -t nat -A PREROUTING -p tcp --dport 9999 -j DNAT --to-destination 10.5.2.2:8000", 9999, client},
		{"b", "iptables-legacy -t nat -A POSTROUTING -o docker0 -p tcp --dport 8000 -j MASQUERADE", 8000, "10.5.2.1"},
	} {
		t.Run(test.at+" "+test.rule, func(t *testing.T) {
			t.Parallel()
			requireTool(t, test.rule)
			a, b := newRunning(t)
			earlier := warm(t, a, b)
			h := map[string]*host{"a": a, "b": b}[test.at]
			h.Exec(test.rule)
			s := connectTo(a, b.listen(8000), netip.AddrPortFrom(b.addr(), test.port))
			if source := s.to.RemoteAddr().(*net.TCPAddr).IP.String(); source != test.source {
				t.Errorf("the connection comes from %s, want %s", source, test.source)
			}
			const messages, acknowledgements = 100, 10 // of the earlier flow
			sent, received := h.fast(func() { s.exchange(messages) })
			if sent+received > acknowledgements {
				t.Errorf("%d and %d packets of a translated flow took the fast path", sent, received)
			}
			h.until("the earlier flow takes the fast path again", func() bool {
				sent, received := h.fast(func() { earlier.exchange(20) })
				return sent >= 20 && received >= 20
			})
		})
	}
}
