package fastpath

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestThousandRules counts how many packets of a flow on the fast path meet a chain
// with 1,000 rules.
func TestThousandRules(t *testing.T) {
	a, b := newRunning(t)
	var rules strings.Builder
	rules.WriteString("table ip user { chain forward { type filter hook forward priority filter; counter;\n")
	for i := range 1000 {
		fmt.Fprintf(&rules, "ip daddr 172.16.%d.%d tcp dport %d counter accept\n", i/250, i%250, 1000+i)
	}
	rules.WriteString("}; }")
	a.nft(rules.String())
	s := warm(t, a, b)
	before := a.counted()
	const messages = 500
	sent, received := a.fast(func() { s.exchange(messages) })
	if n := a.counted() - before; n > messages/50 {
		t.Errorf("%d packets of %d met the rules; %d were sent and %d received by the fast path", n, 2*messages, sent, received)
	}
}

// counted is the first counter of the chain of TestThousandRules.
func (h *host) counted() int {
	h.t.Helper()
	out, err := h.Command(h.t.Context(), "nft", "list", "chain", "ip", "user", "forward").Output()
	h.must(err)
	m := regexp.MustCompile(`counter packets (\d+)`).FindSubmatch(out)
	if m == nil {
		h.t.Fatalf("there is no counter in %s", out)
	}
	n, err := strconv.Atoi(string(m[1]))
	h.must(err)
	return n
}

// TestManyContainers has a host with many containers, of which some go away. Another
// one has a flow on the fast path throughout.
func TestManyContainers(t *testing.T) {
	const crowd = 500
	lab, a, b := newHostsWith(t, "10.5.4.0/22", "10.5.2.0/24")
	runBoth(t, a, b)
	s := warm(t, a, b)
	a.crowd(lab.Namespace("crowd"), crowd)
	a.serves(1 + crowd)
	onFastPath := func() bool {
		sent, received := a.fast(func() { s.exchange(20) })
		return sent >= 20 && received >= 20
	}
	a.until("the flow takes the fast path", onFastPath)
	for i := range crowd / 10 {
		a.must(a.Netlink().LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("crowd%d", i)}}))
	}
	a.serves(1 + crowd - crowd/10)
	a.until("the flow takes the fast path", onFastPath)
}

// crowd gives the host n containers without processes, all in one namespace.
func (h *host) crowd(inside *netnstest.Host, n int) {
	h.t.Helper()
	var ns int
	h.must(inside.Do(func() (err error) {
		ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(ns)
	// Each interface would announce itself by multicast, which the bridge sends to all
	// ports: more packets than the queues of the processors take, which all tests share.
	for _, where := range []*netnstest.Host{h.Host, inside} {
		where.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	}
	bridge, addr := h.index(bridgeName), h.addr()
	for i := range n {
		if addr = addr.Next(); !h.subnet.Contains(addr.Next()) {
			h.t.Fatalf("no address is left for container %d", i)
		}
		mac := net.HardwareAddr{2, 0, 0, 1, byte(i >> 8), byte(i)}
		port := netlink.LinkAttrs{Name: fmt.Sprintf("crowd%d", i), MasterIndex: bridge, MTU: deviceMTU}
		h.must(h.Netlink().LinkAdd(&netlink.Veth{LinkAttrs: port, PeerName: port.Name, PeerNamespace: netlink.NsFd(ns), PeerHardwareAddr: mac}))
		h.Up(port.Name)
		inside.Up(port.Name)
		index := h.index(port.Name)
		h.must(h.Netlink().NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: mac,
		}))
		h.must(h.Netlink().NeighSet(&netlink.Neigh{LinkIndex: bridge, IP: addr.AsSlice(), State: netlink.NUD_PERMANENT, HardwareAddr: mac}))
	}
}
