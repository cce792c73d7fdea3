package fastpath

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestMovedAddressIsJudged gives an address to a container that a rule lets send nothing.
// The rule does not know the address, and the flow of the container before it is on the
// fast path.
func TestMovedAddressIsJudged(t *testing.T) {
	a, b := newRunning(t)
	heir := a.second()
	mac := a.mac(heir, "eth0")
	a.nft(fmt.Sprintf("table ip user { chain forward { type filter hook forward priority filter; ether saddr %v drop; }; }",
		net.HardwareAddr(mac[:])))
	s := datagrams(t, a, b)
	flood(t, s, a, b)

	a.inherit(heir)
	c := dial(t, heir, netip.AddrPortFrom(a.addr(), 7000), netip.AddrPortFrom(b.addr(), 7000))
	a.awaitMAC(heir)
	sent, _ := a.fast(func() {
		before := a.seen()
		a.until("the programs have seen some packets", func() bool {
			if _, err := c.Write([]byte("message")); err != nil {
				t.Fatal(err)
			}
			return a.seen() >= before+64
		})
		silent(t, s.to)
	})
	if sent > 0 {
		t.Errorf("%d packets have passed the rule by", sent)
	}
}

// TestRestlessAddress has an address move more often than the path follows. Its packets
// take the long way.
func TestRestlessAddress(t *testing.T) {
	a, b := newRunning(t)
	heir := a.second()
	a.path.moves.SetBurst(0)
	flood(t, datagrams(t, a, b), a, b)
	a.inherit(heir)
	c := dial(t, heir, netip.AddrPortFrom(a.addr(), 7001), netip.AddrPortFrom(b.addr(), 7001))
	to := dial(t, b.container, netip.AddrPortFrom(b.addr(), 7001), netip.AddrPortFrom(a.addr(), 7001))
	a.until("the status names the address", func() bool {
		s := a.path.Status()
		return s.Containers == 0 && strings.Join(s.Off, "") == "address 10.5.1.2 moves between containers"
	})
	if sent, _ := a.fast(func() {
		for range 64 {
			relay(t, c, to)
		}
	}); sent > 0 {
		t.Errorf("%d packets of the address took the fast path", sent)
	}
	a.path.moves.SetLimit(rate.Inf)
	a.path.changed.Set()
	a.serves(1)
}

// seen returns how many packets the programs have seen.
func (h *host) seen() uint64 {
	h.t.Helper()
	s := h.stats()
	n := s.Sent.Packets + s.Received.Packets
	for _, c := range s.LongWay {
		n += c.Packets
	}
	return n
}

// inherit gives the address of the host's container to another one.
func (h *host) inherit(heir *netnstest.Host) {
	h.t.Helper()
	h.container.DelAddr("eth0", h.container.Addr())
	heir.DelAddr("eth0", heir.Addr())
	heir.AddAddr("eth0", h.container.Addr())
	heir.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), h.gateway(), "")
	h.must(h.Netlink().NeighDel(&netlink.Neigh{LinkIndex: h.index(bridgeName), IP: h.addr().AsSlice()}))
	h.greet(heir, h.addr())
}

// TestRenamedBridgeIsJudged renames a bridge to a name that a rule is about.
func TestRenamedBridgeIsJudged(t *testing.T) {
	for rule, change := range map[string]func(*host){
		`iifname "br-renamed" drop`: func(a *host) { a.rename(bridgeName, "br-renamed") },
		"iifgroup 7 drop":           func(a *host) { a.Exec("ip link set " + bridgeName + " group 7") },
	} {
		t.Run(rule, func(t *testing.T) {
			a, b := newRunning(t)
			a.nft("table ip user { chain forward { type filter hook forward priority filter; " + rule + "; }; }")
			s := datagrams(t, a, b)
			flood(t, s, a, b)
			change(a)
			a.until("the flow has no mark", func() bool { return a.marked(a.marks.Sent) == 0 })
			for range 4 * 16 {
				if _, err := s.from.Write([]byte("message")); err != nil {
					t.Fatal(err)
				}
			}
			silent(t, s.to)
		})
	}
}

// TestManyStations has a container pretend many hardware addresses. The host sends to
// none of them.
func TestManyStations(t *testing.T) {
	a, b := newRunning(t)
	inject := a.injector()
	gateway := a.mac(a.Host, bridgeName)
	const pretended = 1000
	for i := range pretended {
		inject(a.frameTo(b, gateway, MAC{2, 0, 0, 2, byte(i >> 8), byte(i)}))
	}
	a.until("the bridge has learned them", func() bool {
		out, err := a.Command(t.Context(), "bridge", "fdb", "show", "br", bridgeName, "dynamic").Output()
		a.must(err)
		return strings.Count(string(out), "02:00:00:02:") == pretended
	})
	a.nft("table ip user { chain forward { type filter hook forward priority filter; limit rate 1/second accept; }; }")
	a.serves(0) // it has looked
	if n := a.waysPast(bridgeName); n != 1 {
		t.Errorf("%d stations are known, want the container's", n)
	}
	a.nft("delete table ip user")
	a.serves(1)
	warm(t, a, b)
}
