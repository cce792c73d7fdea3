package fastpath

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// rename gives an interface another name. Linux before 6.2 does so only while it is down.
func (h *host) rename(name, to string) {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	err = h.Netlink().LinkSetName(l, to)
	if errors.Is(err, unix.EBUSY) {
		h.must(h.Netlink().LinkSetDown(l))
		h.must(h.Netlink().LinkSetName(l, to))
		err = h.Netlink().LinkSetUp(l)
	}
	h.must(err)
}

// second adds a container to the host's bridge.
func (h *host) second() *netnstest.Host {
	h.t.Helper()
	addr := netip.PrefixFrom(h.addr().Next(), h.subnet.Bits())
	return h.Container(h.Name()+"2", bridgeName, addr, h.gateway(), deviceMTU)
}

// greet sends one packet from a container to its gateway, which learns of it.
func (h *host) greet(c *netnstest.Host, source netip.Addr) {
	h.t.Helper()
	conn := dial(h.t, c, netip.AddrPortFrom(source, 0), netip.AddrPortFrom(h.gateway(), 9))
	if _, err := conn.Write([]byte("hello")); err != nil {
		h.t.Fatal(err)
	}
}

func dial(t *testing.T, from *netnstest.Host, source, target netip.AddrPort) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := from.Do(func() (err error) {
		c, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(source), net.UDPAddrFromAddrPort(target))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	limit(t, c)
	return c
}

// flood exchanges datagrams until a flow takes the fast path at both hosts.
func flood(t *testing.T, s stream, a, b *host) {
	t.Helper()
	b.until("datagrams take the fast path", func() bool {
		sent, _ := a.fast(func() {
			_, received := b.fast(func() { relay(t, s.from, s.to) })
			if received == 0 {
				relay(t, s.from, s.to)
			}
		})
		_, received := b.fast(func() { relay(t, s.from, s.to) })
		return sent > 0 && received > 0
	})
}

func relay(t *testing.T, from, to net.Conn) {
	t.Helper()
	if _, err := from.Write([]byte("message")); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
}

// TestAddressMoves gives a container's address to another one, which has a
// flow to it on the fast path from then on.
func TestAddressMoves(t *testing.T) { eachWay(t, testAddressMoves) }

func testAddressMoves(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := datagrams(t, b, a)
	flood(t, s, b, a)

	heir := a.second()
	a.container.DelAddr("eth0", a.container.Addr())
	heir.DelAddr("eth0", heir.Addr())
	heir.AddAddr("eth0", a.container.Addr())
	heir.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), a.gateway(), "")
	c := dial(t, heir, netip.AddrPortFrom(a.addr(), 7000), netip.AddrPortFrom(b.addr(), 7000))
	// The bridge's neighbour has the old address for up to base_reachable_time.
	a.must(a.Netlink().NeighDel(&netlink.Neigh{LinkIndex: a.index(bridgeName), IP: a.addr().AsSlice()}))
	a.greet(heir, a.addr())
	a.awaitMAC(heir) // until then the former container receives
	flood(t, stream{t, s.from, c}, b, a)
	silent(t, s.to)
}

// awaitMAC waits until an address of the programs leads to a container.
func (h *host) awaitMAC(c *netnstest.Host) {
	h.t.Helper()
	eth0, err := c.Netlink().LinkByName("eth0")
	h.must(err)
	h.until("an address leads to "+c.Name(), func() bool {
		var address fastpathAddress
		var container fastpathContainer
		all := h.programs.Containers.Iterate()
		for all.Next(&address, &container) {
			if bytes.Equal(container.Mac[:], eth0.Attrs().HardwareAddr) {
				return true
			}
		}
		return false
	})
}

// TestContainerGone deletes a container with a flow on the fast path.
func TestContainerGone(t *testing.T) {
	a, b := newRunning(t)
	flood(t, datagrams(t, b, a), b, a)
	l, err := a.Netlink().LinkByName("veth-" + a.container.Name())
	a.must(err)
	a.must(a.Netlink().LinkDel(l))
	a.serves(0)
	hooks, err := a.programs.hooks()
	a.must(err)
	bridge := a.programs.hook(fastpathProgWhole, a.index(bridgeName))
	if len(hooks) != 1 || hooks[0] != bridge {
		t.Errorf("programs are attached at %v, want %v", hooks, bridge)
	}
}

// TestBridge renames a bridge, and then deletes it.
func TestBridge(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	l, err := a.Netlink().LinkByName(bridgeName)
	a.must(err)
	a.rename(bridgeName, "br-renamed")
	flood(t, s, a, b)
	a.must(a.Netlink().LinkDel(l))
	a.serves(0)
}

// TestNeighbour exchanges packets of two containers of one host, whose bridge
// and ports reflect and take in all that they can.
func TestNeighbour(t *testing.T) {
	a, b := newRunning(t)
	flood(t, datagrams(t, a, b), a, b)
	bridge, err := a.Netlink().LinkByName(bridgeName)
	a.must(err)
	a.must(a.Netlink().SetPromiscOn(bridge))
	other := a.second()
	for _, c := range []*netnstest.Host{a.container, other} {
		port, err := a.Netlink().LinkByName("veth-" + c.Name())
		a.must(err)
		a.must(a.Netlink().LinkSetHairpin(port, true))
	}
	// A new port may change the bridge's address, which takes its neighbours away.
	a.greet(other, other.Addr().Addr())
	a.greet(a.container, a.addr())
	a.serves(2)
	x := dial(t, a.container, netip.AddrPortFrom(a.addr(), 7001), netip.AddrPortFrom(other.Addr().Addr(), 7001))
	y := dial(t, other, netip.AddrPortFrom(other.Addr().Addr(), 7001), netip.AddrPortFrom(a.addr(), 7001))
	sent, received := a.fast(func() {
		for range 100 {
			relay(t, x, y)
			relay(t, y, x)
		}
	})
	if sent+received > 0 {
		t.Errorf("%d and %d packets between containers of one host took the fast path", sent, received)
	}
	flood(t, datagramsAt(t, a, b, 7002), a, b)
}

// TestShaper puts shapers and filters of others where the fast path passes them
// by, and closes the container's port.
func TestShaper(t *testing.T) {
	for _, test := range []struct{ name, add, remove, want string }{
		{"shaper at the port", "tc qdisc add dev veth-a1 root tbf rate 1mbit burst 10k latency 50ms", "tc qdisc del dev veth-a1 root", "qdisc tbf at veth-a1"},
		{"filter at the port", "tc filter add dev veth-a1 ingress pref 9 bpf direct-action object-pinned " + passing(t), "tc filter del dev veth-a1 ingress pref 9", "tc filter at veth-a1"},
		{"locked port", "ip link set dev veth-a1 type bridge_slave locked on", "ip link set dev veth-a1 type bridge_slave locked off", "locked port at veth-a1"},
		{"filter at the tunnel", "tc filter add dev flannel0 ingress pref 9 bpf direct-action object-pinned " + passing(t), "tc filter del dev flannel0 ingress pref 9", "tc filter at flannel0"},
		{"shaper at the bridge", "tc qdisc add dev docker0 root tbf rate 1mbit burst 10k latency 50ms", "tc qdisc del dev docker0 root", "qdisc tbf at docker0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, _ := newRunning(t)
			if device, isFilter := strings.CutPrefix(test.add, "tc filter add dev "); isFilter {
				a.addClsact(strings.Fields(device)[0])
				a.serves(1)
			}
			a.Exec(test.add)
			a.serves(0)
			a.until("the status says "+test.want, func() bool { return strings.Join(a.path.Status().Off, "") == test.want })
			a.Exec(test.remove)
			a.serves(1)
			a.until("the status is clear", func() bool { return len(a.path.Status().Off) == 0 })
		})
	}
}

// TestClosedPort finds a port that the spanning tree has not opened yet.
func TestClosedPort(t *testing.T) {
	_, a, _ := newHosts(t)
	closed := func() (found map[int]string) {
		t.Helper()
		a.must(a.Do(func() (err error) {
			found, err = closedPorts()
			return err
		}))
		return found
	}
	if found := closed(); len(found) > 0 {
		t.Errorf("closed ports without a spanning tree: %v", found)
	}
	a.Exec("ip link set " + bridgeName + " type bridge forward_delay 3000 stp_state 1")
	port := "veth-" + a.second().Name()
	a.until("the new port is closed", func() bool { return closed()[a.index(port)] == "spanning tree" })
}

// TestRuleJudgesEachPacket adds a rule that must see each packet.
func TestRuleJudgesEachPacket(t *testing.T) {
	a, b := newRunning(t)
	s := warm(t, a, b)
	a.nft("table ip user { chain forward { type filter hook forward priority filter; limit rate 1000/second accept; }; }")
	a.serves(0)
	if sent, received := a.fast(func() { s.exchange(20) }); sent+received > 0 {
		t.Errorf("%d and %d packets passed the rule by", sent, received)
	}
	a.nft("delete table ip user")
	a.serves(1)
	a.until("the flow takes the fast path", func() bool {
		sent, received := a.fast(func() { s.exchange(20) })
		return sent > 0 && received > 0
	})
}

// TestHeader compares what a container receives by both ways.
func TestHeader(t *testing.T) { eachWay(t, testHeader) }

func testHeader(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := datagrams(t, a, b)
	receive := watchHeader(t, s.to)
	type header struct{ ttl, tos int }
	slow := make(map[int]header)
	for _, tos := range []int{0, 1, 2, 3, 0xb8, 0xfe} {
		slow[tos] = header(receive(s.from, tos))
	}
	flood(t, s, a, b)
	for tos, want := range slow {
		var got header
		sent, _ := a.fast(func() {
			_, received := b.fast(func() { got = header(receive(s.from, tos)) })
			if received != 1 {
				t.Errorf("TOS %#x: the packet was not received by the fast path", tos)
			}
		})
		if sent != 1 {
			t.Errorf("TOS %#x: the packet was not sent by the fast path", tos)
		}
		if got != want || got.tos != tos {
			t.Errorf("TOS %#x: TTL and TOS %+v, by the long way %+v", tos, got, want)
		}
	}
}

// watchHeader returns a function that sends a datagram with a TOS and returns
// TTL and TOS as received.
func watchHeader(t *testing.T, to net.Conn) func(net.Conn, int) struct{ ttl, tos int } {
	t.Helper()
	control(t, to, func(fd int) error {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTTL, 1); err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
	})
	return func(from net.Conn, tos int) (h struct{ ttl, tos int }) {
		t.Helper()
		control(t, from, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, tos) })
		if _, err := from.Write([]byte("message")); err != nil {
			t.Fatal(err)
		}
		oob := make([]byte, 200)
		_, n, _, _, err := to.(*net.UDPConn).ReadMsgUDP(make([]byte, 100), oob)
		if err != nil {
			t.Fatal(err)
		}
		messages, err := unix.ParseSocketControlMessage(oob[:n])
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.IP_TTL:
				h.ttl = int(m.Data[0])
			case unix.IP_TOS:
				h.tos = int(m.Data[0])
			}
		}
		return h
	}
}

func control(t *testing.T, c net.Conn, f func(fd int) error) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	if inner != nil {
		t.Fatal(inner)
	}
}

// TestOddPackets sends what the kernel must handle on a flow that is on the
// fast path: fragments, a TTL of 1, and what is larger than the path's MTU.
func TestOddPackets(t *testing.T) { eachWay(t, testOddPackets) }

func testOddPackets(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	fragmented := func() {
		if _, err := s.from.Write(make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
		if n, err := s.to.Read(make([]byte, 4000)); n != 3000 {
			t.Fatalf("%d bytes arrived of 3000: %v", n, err)
		}
	}
	control(t, s.from, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT)
	})
	if sent, _ := a.fast(fragmented); sent > 0 {
		t.Errorf("%d fragments took the fast path", sent)
	}

	control(t, s.from, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 1) })
	expectError(t, s.from, 10, unix.EHOSTUNREACH)
	control(t, s.from, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, 64) })

	control(t, s.from, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 0) })
	for _, name := range []string{"veth-" + a.container.Name(), bridgeName} {
		a.SetMTU(name, 9000)
	}
	a.container.SetMTU("eth0", 9000)
	control(t, s.from, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
	})
	a.until("datagrams take the fast path again", func() bool {
		sent, _ := a.fast(func() { relay(t, s.from, s.to) })
		return sent > 0
	})
	if sent, _ := a.fast(func() { expectError(t, s.from, 2000, unix.EMSGSIZE) }); sent > 0 {
		t.Errorf("%d packets above the MTU took the fast path", sent)
	}
}

// expectError sends a datagram and waits for the error that ICMP makes of it.
func expectError(t *testing.T, c net.Conn, size int, want error) {
	t.Helper()
	if _, err := c.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	control(t, c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1) })
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		var got error
		control(t, c, func(fd int) error {
			n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			got = syscall.Errno(n)
			return err
		})
		if got == want {
			return
		}
		if _, err := c.Write(make([]byte, size)); err == want {
			return
		}
	}
	t.Fatalf("no %v within 5 s", want)
}

// TestLifetime sees the programs stop when user space no longer renews them.
func TestLifetime(t *testing.T) {
	_, a, b := newHosts(t)
	for _, h := range []*host{a, b} {
		h.start(h.known())
	}
	s := warm(t, a, b)
	a.must(a.programs.suspend())
	if sent, received := a.fast(func() { s.exchange(100) }); sent+received > 0 {
		t.Errorf("%d and %d packets took the fast path", sent, received)
	}
}

// TestAdoptAfterSuspend suspends the path and resumes it twice, and starts user space
// again.
func TestAdoptAfterSuspend(t *testing.T) {
	a, _ := newRunning(t)
	a.serves(1)
	for range 2 {
		a.must(a.Do(a.path.Suspend))
		a.must(a.Do(func() error { return a.path.Join(a.tunnel) }))
		a.serves(1)
	}
	a.stop()
	a.run()
	if !a.path.Adopted() {
		t.Error("the programs were not adopted")
	}
}

// TestAdopt ends user space, and starts it again.
func TestAdopt(t *testing.T) { eachWay(t, testAdopt) }

func testAdopt(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := warm(t, a, b)
	before := a.stats()
	a.stop()
	sent, received := b.fast(func() { s.exchange(100) })
	if sent < 100 || received < 100 {
		t.Errorf("%d and %d packets of 100 took the fast path", sent, received)
	}
	a.run()
	if !a.path.Adopted() {
		t.Error("the programs were not adopted")
	}
	a.serves(1)
	s.exchange(100)
	// The rules judge the flow again.
	if n := a.stats().Sent.Packets - before.Sent.Packets; n < 190 {
		t.Errorf("%d packets of 200 took the fast path over the restart", n)
	}
}

// TestRuleAddedMeanwhile adds a rule while user space is away.
func TestRuleAddedMeanwhile(t *testing.T) { eachWay(t, testRuleAddedMeanwhile) }

func testRuleAddedMeanwhile(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := warm(t, a, b)
	a.stop()
	a.nft("table ip user { chain forward { type filter hook forward priority filter; oifname " + a.outer() + " drop; }; }")
	a.run()
	a.until("the flow has no mark", func() bool { return a.marked(a.marks.Sent) == 0 })
	if _, err := s.from.Write([]byte("too late")); err != nil {
		t.Fatal(err)
	}
	silent(t, s.to)
}

// TestReplaced adopts from a version with other constants.
func TestReplaced(t *testing.T) {
	a, b := newRunning(t)
	s := warm(t, a, b)
	a.stop()
	a.marks = Marks{Sent: 1 << 20, Received: 1 << 21}
	a.run()
	if a.path.Adopted() {
		t.Error("programs with other constants were adopted")
	}
	a.serves(1)
	a.until("the flow takes the fast path", func() bool {
		sent, received := a.fast(func() { s.exchange(1) })
		return sent > 0 && received > 0
	})
}

// passing pins a tc program that does nothing.
func passing(t *testing.T) string {
	t.Helper()
	return pinnedProgram(t, ebpf.SchedCLS, 0) // TC_ACT_OK
}

var pins atomic.Int32 // number the pins of passing

// pinnedProgram pins a program that has one verdict for all packets.
func pinnedProgram(t *testing.T, kind ebpf.ProgramType, verdict int32) string {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil { // before Linux 5.11
		t.Fatal(err)
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: kind, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, verdict), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	pins.Add(1)
	path := filepath.Join(bpffs, fmt.Sprintf("flannel-test-%d-pass-%d", os.Getpid(), pins.Load()))
	if err := program.Pin(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(program.Unpin(), program.Close()); err != nil {
			t.Error(err)
		}
	})
	return path
}

// TestBridgeRule drops packets behind the rule that marks the entry, at the
// bridge.
func TestBridgeRule(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, b, a)
	flood(t, s, b, a)
	a.nft("table bridge user { chain c { type filter hook postrouting priority filter; oifname veth-a1 ether type ip drop; }; }")
	a.forget()
	for range 100 {
		if _, err := s.from.Write([]byte("message")); err != nil {
			t.Fatal(err)
		}
	}
	silent(t, s.to)
}

// TestRefresh has the kernel keep a neighbour that only the fast path uses.
func TestRefresh(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, b, a)
	flood(t, s, b, a)
	mac := a.known().MAC
	neighbour := netlink.Neigh{
		LinkIndex: a.index(bridgeName), IP: a.addr().AsSlice(), State: netlink.NUD_STALE, HardwareAddr: mac[:],
	}
	a.must(a.Netlink().NeighSet(&neighbour))
	a.until("the neighbour is in use", func() bool {
		relay(t, s.from, s.to)
		a.must(a.Netlink().LinkSetTxQLen(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: neighbour.LinkIndex}}, 1000+int(b.stats().Sent.Packets)))
		all, err := a.Netlink().NeighList(neighbour.LinkIndex, unix.AF_INET)
		a.must(err)
		return slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.Equal(neighbour.IP) && n.State != netlink.NUD_STALE })
	})
}

// TestOtherNetwork has a second network on one host. Each serves its own
// containers and no others.
func TestOtherNetwork(t *testing.T) {
	a, b := newRunning(t)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	second := netip.MustParsePrefix("10.6.0.0/16")
	var device int
	a.must(a.Do(func() error {
		tun, err := netnstest.OpenTUN("flannel1")
		if err != nil {
			return err
		}
		t.Cleanup(func() { tun.Close() })
		i, err := net.InterfaceByName("flannel1")
		if err == nil {
			device = i.Index
		}
		return err
	}))
	a.Bridge("docker1", netip.MustParsePrefix("10.6.1.1/24"), 0)
	c := a.Container("a9", "docker1", netip.MustParsePrefix("10.6.1.2/24"), netip.MustParseAddr("10.6.1.1"), 0)
	config := a.config()
	config.Name, config.Device, config.Network, config.Subnet = "flannel1", device, second, netip.MustParsePrefix("10.6.1.0/24")
	config.PinDir += "-second"
	a.runPath(config)
	greet := dial(t, c, netip.MustParseAddrPort("10.6.1.2:0"), netip.MustParseAddrPort("10.6.1.1:9"))
	if _, err := greet.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	a.until("the second network serves its container", func() bool { return a.others[0].Status().Containers == 1 })
	before, err := a.others[0].Stats()
	a.must(err)
	if sent, _ := a.fast(func() {
		for range 100 {
			relay(t, s.from, s.to)
		}
	}); sent != 100 {
		t.Errorf("%d packets of 100 took the fast path", sent)
	}
	after, err := a.others[0].Stats()
	a.must(err)
	if after.Sent != before.Sent || after.Received != before.Received {
		t.Errorf("the second network has carried packets of the first: %+v, before %+v", after, before)
	}
	if n := a.path.Status().Containers; n != 1 {
		t.Errorf("the first network serves %d containers", n)
	}
}
