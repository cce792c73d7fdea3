package bpf

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

func TestProbe(t *testing.T) {
	netnstest.Require(t)
	if _, err := Probe(); err != nil {
		t.Fatal(err)
	}
}

func TestPing(t *testing.T) { eachFamilies(t, testPing) }

func testPing(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	largest := f.mtu() - f.inner.HeaderLen() - 8
	for name, args := range map[string][]string{
		"small":     nil,
		"largest":   {"-M", "do", "-s", fmt.Sprint(largest)},
		"fragments": {"-s", "4000"},
		"options":   map[inet.Family][]string{inet.IPv4: {"-R"}, inet.IPv6: {"-s", "1"}}[f.inner],
	} {
		t.Run(name, func(t *testing.T) {
			run(t, a.Host, "ping", append([]string{"-c", "3", "-i", "0.01", "-w", "5", b.inner().String()}, args...)...)
		})
	}
	untouched(t, a, b)
	// 3 pings, one of them in three fragments, and each answered.
	s := a.statsOf(b.subnet)
	if want := uint64(3*3 + 3*3); s.TxPackets != want || s.RxPackets != want {
		t.Errorf("a counts %d packets to b and %d from it; want %d", s.TxPackets, s.RxPackets, want)
	}
	if s.TxBytes != s.RxBytes || s.TxBytes < uint64(3*(56+largest+4000)) {
		t.Errorf("a counts %d bytes to b and %d from it", s.TxBytes, s.RxBytes)
	}
	for reason, n := range a.drops() {
		if n != 0 {
			t.Errorf("dropped %d for %s", n, reason)
		}
	}
}

func TestTCP(t *testing.T) { eachFamilies(t, testTCP) }

func testTCP(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	const size = uint64(400e6)
	r := iperf(t, a.Host, b.Host, b.inner(), "-n", "400M", "-P", "4")
	t.Logf("%.1f Gb/s", r.End.SumReceived.BitsPerSecond/1e9)
	if r.End.SumReceived.Bytes < float64(size)/2 { // the rest has not arrived when the sender ends
		t.Errorf("received %.0f bytes", r.End.SumReceived.Bytes)
	}
	untouched(t, a, b)
	// The count is of segments, not of super-packets.
	s := a.statsOf(b.subnet)
	headers := uint64(f.inner.HeaderLen() + 32)
	segments := size / (uint64(f.mtu()) - headers)
	if s.TxPackets < segments || s.TxBytes < size+headers*segments || s.TxBytes > size*12/10 {
		t.Errorf("a counts %d packets, %d bytes", s.TxPackets, s.TxBytes)
	}
	// iperf's last segments may be on the way.
	netnstest.Eventually(t, "both count the same", func() error {
		s, p := a.statsOf(b.subnet), b.statsOf(a.subnet)
		if p.RxPackets != s.TxPackets || p.RxBytes != s.TxBytes {
			return fmt.Errorf("b counts %d packets, %d bytes; a %d, %d", p.RxPackets, p.RxBytes, s.TxPackets, s.TxBytes)
		}
		return nil
	})
}

func TestUDP(t *testing.T) { eachFamilies(t, testUDP) }

func testUDP(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	for _, size := range []string{"64", "1400", "8000"} {
		r := iperf(t, a.Host, b.Host, b.inner(), "-u", "-b", "20M", "-n", "1M", "-l", size)
		if r.End.Sum.Packets == 0 || r.End.Sum.OutOfOrder != 0 {
			t.Errorf("datagrams of %s bytes: %+v", size, r.End.Sum)
		}
	}
	untouched(t, a, b)
}

// TestMixed has a host in the kernel path exchange packets with one that has
// user space alone, and that would cut a datagram above its MTU.
func TestMixed(t *testing.T) { eachFamilies(t, testMixed) }

func testMixed(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, false, true)
	a, plain, c := hosts[0], hosts[1], hosts[2]
	for _, pair := range [][2]*host{{a, plain}, {plain, a}} {
		from, to := pair[0], pair[1]
		run(t, from.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", to.inner().String())
		run(t, from.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", "-s", "4000", to.inner().String())
		r := iperf(t, from.Host, to.Host, to.inner(), "-n", "20M")
		t.Logf("%s to %s: %.2f Gb/s", from.Name(), to.Name(), r.End.SumReceived.BitsPerSecond/1e9)
	}
	if n := a.statsOf(plain.subnet); n.TxPackets != 0 || n.RxPackets != 0 {
		t.Errorf("the kernel path handled packets of a user-space peer: %+v", n)
	}
	iperf(t, a.Host, c.Host, c.inner(), "-n", "20M")
	untouched(t, c)
}

// TestContainers has super-packets arrive from and leave to veth pairs, with
// and without source translation.
func TestContainers(t *testing.T) { eachFamilies(t, testContainers) }

func testContainers(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	ca, cb := a.container(), b.container()
	addr := f.addrOf(cb)
	run(t, ca, "ping", "-c", "3", "-i", "0.01", "-w", "5", addr.String())
	r := iperf(t, ca, cb, addr, "-n", "200M")
	t.Logf("%.1f Gb/s", r.End.SumReceived.BitsPerSecond/1e9)

	run(t, a.Host, "nft", "add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; };"+
		"add rule inet nat post oifname flannel0 counter masquerade")
	run(t, ca, "ping", "-c", "3", "-i", "0.01", "-w", "5", addr.String())
	r = iperf(t, ca, cb, addr, "-n", "200M")
	t.Logf("masqueraded: %.1f Gb/s", r.End.SumReceived.BitsPerSecond/1e9)
	if rules := run(t, a.Host, "nft", "list", "table", "inet", "nat"); strings.Contains(rules, "packets 0") {
		t.Errorf("nothing was masqueraded:\n%s", rules)
	}
	untouched(t, a, b)
}

// container makes a bridge and a container on it, with two addresses of the subnet. A
// bridge needs one of IPv4, which the overlay may not carry.
func (h *host) container() *netnstest.Host {
	h.t.Helper()
	gateway := netip.AddrFrom4([4]byte{172, 30, 1, 1})
	if h.families.inner == inet.IPv4 {
		gateway = h.inner().Next()
	}
	h.Bridge("docker0", netip.PrefixFrom(gateway, 24), h.mtu())
	c := h.Container(h.Name()+"1", "docker0", netip.PrefixFrom(gateway.Next(), 24), gateway, h.mtu())
	if h.families.inner == inet.IPv6 {
		h.AddIPv6("docker0", c, h.subnet)
	}
	return c
}

// addrOf is the address of a container in the overlay.
func (f families) addrOf(c *netnstest.Host) netip.Addr {
	if f.inner == inet.IPv4 {
		return c.Addr().Addr()
	}
	return c.IPv6Addr().Addr()
}
