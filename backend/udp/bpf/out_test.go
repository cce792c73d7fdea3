package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// TestHeader looks at what is on the wire.
func TestHeader(t *testing.T) { eachFamilies(t, testHeader) }

func testHeader(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	sniffed := b.sniff(netnstest.Uplink)
	ports := make(map[uint16]bool)
	for i, tos := range []int{0, 1, 2, 3, 0xb8, 0xfe} {
		from := netip.AddrPortFrom(a.inner(), echoPort+uint16(i/3))
		a.say(from, b.inner(), tos, fmt.Sprintf("message %d", i))
		p := sniffed(fmt.Sprintf("message %d", i))
		udp := p[f.outer.HeaderLen():]
		source := binary.BigEndian.Uint16(udp)
		ports[source] = true
		for _, check := range append(outerFields(f.outer, p), []headerField{
			{"TOS", int(binary.BigEndian.Uint16(p)) >> (4 * int(f.outer)) & 0xff, tos},
			{"port", int(binary.BigEndian.Uint16(udp[2:])), port},
			{"UDP length", int(binary.BigEndian.Uint16(udp[4:])), len(udp)},
			{"UDP checksum", int(binary.BigEndian.Uint16(udp[6:])), 0},
		}...) {
			if check.got != check.want {
				t.Errorf("TOS %#x: outer %s is %#x, want %#x", tos, check.what, check.got, check.want)
			}
		}
		if got := sourceOf(p); got != a.local() {
			t.Errorf("outer source is %v", got)
		}
		if got := destinationOf(p); got != b.local() {
			t.Errorf("outer destination is %v", got)
		}
		if source < 49152 {
			t.Errorf("outer source port %d is not of the dynamic range", source)
		}
	}
	if len(ports) != 2 {
		t.Errorf("two flows have outer source ports %v", ports)
	}
	untouched(t, a, b)
}

// headerField is a field of a header, as it is and as it must be.
type headerField struct {
	what      string
	got, want int
}

// outerFields are those that only one family has. IPv6's flow label is of the flow, as
// the source port is.
func outerFields(outer inet.Family, p []byte) []headerField {
	if outer == inet.IPv6 {
		return []headerField{
			{"version", int(p[0] >> 4), 6},
			{"length", int(binary.BigEndian.Uint16(p[4:])), len(p) - 40},
			{"flow label", int(binary.BigEndian.Uint32(p) & 0xfffff), int(binary.BigEndian.Uint16(p[40:]) & 0x3fff)},
			{"next header", int(p[6]), 17},
			{"hop limit", int(p[7]), 64},
		}
	}
	return []headerField{
		{"version and length", int(p[0]), 0x45},
		{"length", int(binary.BigEndian.Uint16(p[2:])), len(p)},
		{"flags and offset", int(binary.BigEndian.Uint16(p[6:])), 0x4000},
		{"TTL", int(p[8]), 64},
		{"header checksum", int(checksum(p[:20])), 0},
	}
}

// sourceOf returns the source of a packet.
func sourceOf(packet []byte) netip.Addr {
	if packet[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(packet[12:16]))
	}
	return netip.AddrFrom16([16]byte(packet[8:24]))
}

// TestLargest sends packets up to and above the largest that the kernel lets a
// program make longer (BPF_SKB_MAX_LEN, net/core/filter.c: four pages). Every
// one must be carried by either path.
func TestLargest(t *testing.T) {
	lab, hosts := newHosts(t, false, false)
	a, b := hosts[0], hosts[1]
	const direct, mtu = "direct", 20000
	lab.Wire(a.Host, direct, b.Host, direct, mtu)
	for i, h := range hosts {
		peer := hosts[1-i]
		h.SetMTU(deviceName, mtu-28)
		c := h.config()
		c.MTU = mtu - 28
		h.attach(c, []Peer{peerAt(peer.subnet, peer.local(), true)})
		h.attachTo(netnstest.Uplink, direct)
	}
	a.AddRoute(netip.PrefixFrom(b.local(), 32), netip.Addr{}, direct)
	b.AddRoute(netip.PrefixFrom(a.local(), 32), netip.Addr{}, direct)
	device := listenInner(b)
	declined := make(chan int, 1)
	a.mu.Lock()
	a.oddOut = func(p []byte) { declined <- len(p) }
	a.mu.Unlock()
	taken := make(chan int, 1)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		packet := make([]byte, mtu)
		for {
			n, err := device.Read(packet)
			if err != nil {
				return
			}
			taken <- n + 28
		}
	})
	defer func() { a.must(device.SetReadDeadline(time.Unix(1, 0))) }()
	var inKernel, inUser int
	for i := range 200 {
		size := 15900 + i
		// Each is its own flow, as a declined packet declines its flow.
		from := netip.AddrPortFrom(a.inner(), uint16(20000+i))
		a.say(from, b.inner(), 0, strings.Repeat("x", size-28))
		select {
		case n := <-taken:
			inKernel++
			if n != size {
				t.Fatalf("%d bytes came of %d", n, size)
			}
		case n := <-declined:
			inUser++
			if n != size {
				t.Fatalf("the reader of the device got %d bytes of %d", n, size)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("a packet of %d bytes is lost; drops of the sender are %v", size, a.drops())
		}
	}
	if inKernel == 0 || inUser == 0 {
		t.Errorf("%d packets went by the kernel, %d by user space; want some each", inKernel, inUser)
	}
}

// TestTooBig has a router report that the path takes less than the uplink. The
// kernel path must leave what is larger to user space, which can answer.
func TestTooBig(t *testing.T) { eachFamilies(t, testTooBig) }

func testTooBig(t *testing.T, families families) {
	_, hosts := newHostsOf(t, families, false, true, true)
	a, b := hosts[0], hosts[1]
	ping := func(size int) {
		t.Helper()
		run(t, a.Host, "ping", "-c", "1", "-w", "5", "-M", "do", "-s", fmt.Sprint(size), b.inner().String())
	}
	ping(1380)
	untouched(t, a, b)

	const mtu = 1300
	w := newWire(b, a, netnstest.Uplink, netnstest.Uplink)
	report := func(f frame) (accepted bool) {
		t.Helper()
		f.outerSource, f.outerDestination, f.fragment = a.local(), b.local(), 0x4000
		f.source, f.destination, f.payload = a.inner(), b.inner(), make([]byte, 1400)
		run(t, a.Host, "ip", "-"+map[inet.Family]string{inet.IPv4: "4", inet.IPv6: "6"}[families.outer], "route", "flush", "cache")
		w.send(tooBig(b.local(), a.local(), mtu, f.bytes()[:families.overhead()]))
		return strings.Contains(run(t, a.Host, "ip", "route", "get", b.local().String()), fmt.Sprint("mtu ", mtu))
	}
	// Since the stable releases of November 2026 (6.1.0-57, 6.12.117, 7.2.13) the kernel
	// itself accepts reports about UDP datagrams of no socket.
	accepts := report(frame{sourcePort: 40000, port: port + 1})
	for _, others := range []frame{{sourcePort: 40000}, {port: port + 1}} {
		if report(others) != accepts {
			t.Fatalf("the programs change what the kernel does with a report about others' datagrams: accept them, %v", !accepts)
		}
	}
	if !report(frame{}) {
		t.Fatal("the kernel does not accept a report about a datagram of the programs")
	}
	largest := mtu - families.overhead() - families.inner.HeaderLen() - 8
	ping(largest)
	untouched(t, a, b)
	// With one more byte it goes to user space, whose socket refuses it.
	out, err := a.Command(t.Context(), "ping", "-c", "1", "-W", "0.1", "-M", "do", "-s", fmt.Sprint(largest+1), b.inner().String()).CombinedOutput()
	if err == nil {
		t.Errorf("too large a packet was answered:\n%s", out)
	}
	if n := a.sent.Load(); n != 1 {
		t.Errorf("user space got %d packets, want the one that is too large", n)
	}
	iperf(t, b.Host, a.Host, a.inner(), "-n", "10M")
	if n := a.sent.Load(); n != 1 {
		t.Errorf("user space got %d packets, want 1", n)
	}
}

// tooBig is a router's report about a datagram: RFC 1191 section 4, RFC 4443 section 3.2.
func tooBig(from, to netip.Addr, mtu uint16, datagram []byte) []byte {
	if from.Is4() {
		message := append([]byte{3, 4, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, datagram...)
		binary.BigEndian.PutUint16(message[2:], checksum(message))
		return append(ip(0, 0, 0, 1, nil, len(message), from, to), message...)
	}
	message := append([]byte{2, 0, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)}, datagram...)
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{0, 58, 0, byte(len(message))}, message)
	binary.BigEndian.PutUint16(message[2:], checksum(pseudo))
	return append(ip6(0, 0, 58, len(message), from, to), message...)
}

// TestRouteMTU has routes with an MTU, and packets that fit the device alone.
// For packets that are not its own, the kernel looks at it only if it is locked
// or told to (ip_mtu_from_fib_result in net/ipv4/route.c).
func TestRouteMTU(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	declined := make(chan int, 1)
	a.mu.Lock()
	a.oddOut = func(packet []byte) { declined <- len(packet) }
	a.mu.Unlock()
	device := listenInner(b)
	text := strings.Repeat("x", deviceMTU-28)
	for i, test := range []struct {
		lock, told, heeded bool
	}{
		{false, false, false}, {true, false, true}, {false, true, true}, {true, true, true},
	} {
		a.setRouteMTU(b.local(), 1400, test.lock)
		a.Sysctl("net.ipv4.ip_forward_use_pmtu", map[bool]string{false: "0", true: "1"}[test.told])
		// Each is its own flow, as a declined packet declines its flow.
		a.say(netip.AddrPortFrom(a.inner(), uint16(20000+i)), b.inner(), 0, text)
		if test.heeded {
			wait(t, declined)
		} else if _, got := device.receive(t); got != text {
			t.Errorf("%+v: %d bytes came", test, len(got))
		}
		if n := a.statsOf(b.subnet).TxPackets; n != 1 {
			t.Errorf("%+v: the path sent %d packets of all, want the first", test, n)
		}
	}
}

// TestSuperPacketTooBig is about segments that fit the device and not the route.
func TestSuperPacketTooBig(t *testing.T) { eachFamilies(t, testSuperPacketTooBig) }

func testSuperPacketTooBig(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	a.setRouteMTU(b.local(), 1400, true)
	declined := make(chan int, 1)
	a.mu.Lock()
	a.oddOut = func(packet []byte) {
		select {
		case declined <- len(packet):
		default:
		}
	}
	a.mu.Unlock()
	l, err := b.Listen(t.Context(), "tcp", netip.AddrPortFrom(b.inner(), echoPort).String())
	b.must(err)
	defer l.Close()
	c, err := a.Dial(t.Context(), "tcp", l.Addr().String())
	a.must(err)
	defer c.Close()
	untouched(t, a, b)
	_, err = c.Write(make([]byte, 1<<14)) // no more than the socket holds, since nothing is acknowledged
	a.must(err)
	if n := wait(t, declined); n <= 1400-f.overhead() {
		t.Errorf("user space got a packet of %d bytes, which fits", n)
	}
}

// TestRoutes moves the way to a peer, without telling the path. The kernel's route
// counts from the next jiffy on: the first packet may still take the way before.
func TestRoutes(t *testing.T) {
	lab, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	ping := func() {
		t.Helper()
		run(t, a.Host, "ping", "-c", "5", "-i", "0.01", "-w", "5", b.inner().String())
		untouched(t, a, b)
	}
	lab.Wire(a.Host, "second", b.Host, "second", 0)
	joinByTUN(t, a, b, "bare")
	for i, name := range []string{"second", "bare"} {
		for j, h := range hosts {
			h.AddAddr(name, netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, byte(100 + i), byte(1 + j)}), 24))
		}
	}
	for _, h := range hosts {
		h.attachTo(netnstest.Uplink, "second", "bare")
	}
	ping()
	for i, name := range []string{"second", "bare"} {
		via := netip.AddrFrom4([4]byte{192, 168, byte(100 + i), 2})
		before := a.txPackets(name)
		a.AddRoute(netip.PrefixFrom(b.local(), 32), via, name)
		ping()
		if n := a.txPackets(name) - before; n < 4 {
			t.Errorf("%s sent %d packets, want at least 4 of 5", name, n)
		}
		a.DelRoute(netip.PrefixFrom(b.local(), 32), via, name)
	}
	ping()

	// On an uplink that is no longer attached, the socket receives datagrams.
	b.attachTo(netnstest.Uplink)
	a.AddRoute(netip.PrefixFrom(b.local(), 32), netip.AddrFrom4([4]byte{192, 168, 100, 2}), "second")
	run(t, a.Host, "ping", "-c", "5", "-i", "0.01", "-w", "5", b.inner().String())
	if n := b.received.Load(); n < 4 {
		t.Errorf("the socket received %d packets, want at least 4 of 5", n)
	}
}

func (h *host) txPackets(name string) uint64 {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	return l.Attrs().Statistics.TxPackets
}

// joinByTUN joins two hosts by devices that have no link header.
func joinByTUN(t *testing.T, a, b *host, name string) {
	t.Helper()
	var ends [2]*os.File
	for i, h := range []*host{a, b} {
		h.must(h.Do(func() (err error) {
			ends[i], err = netnstest.OpenTUN(name)
			return err
		}))
		h.Up(name)
	}
	var wg sync.WaitGroup
	for i := range ends {
		wg.Go(func() {
			if _, err := io.CopyBuffer(only{ends[i]}, only{ends[1-i]}, make([]byte, 1<<16)); !errors.Is(err, os.ErrClosed) {
				t.Errorf("join by TUN: %v", err)
			}
		})
	}
	t.Cleanup(func() {
		a.must(errors.Join(ends[0].Close(), ends[1].Close()))
		wg.Wait()
	})
}

// only hides what would have io.Copy do without the buffer.
type only struct{ io.ReadWriter }

// say sends one datagram with a TOS.
func (h *host) say(from netip.AddrPort, to netip.Addr, tos int, text string) {
	h.t.Helper()
	level, option := unix.IPPROTO_IP, unix.IP_TOS
	if to.Is6() {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	h.must(h.Do(func() error {
		fd, err := unix.Socket(inet.Of(to).AF(), unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(fd, level, option, tos),
			unix.Bind(fd, sockaddr(from)),
			unix.Sendto(fd, []byte(text), 0, sockaddr(netip.AddrPortFrom(to, echoPort))),
			unix.Close(fd))
	}))
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// sniff returns a function that waits for an IP packet with some text in it.
func (h *host) sniff(name string) func(text string) []byte {
	h.t.Helper()
	fd := h.capture(name)
	return func(text string) []byte {
		h.t.Helper()
		for {
			packet := make([]byte, 1<<16)
			n, _, err := unix.Recvfrom(fd, packet, 0)
			h.must(err)
			if strings.Contains(string(packet[:n]), text) {
				return packet[:n]
			}
		}
	}
}

// capture opens a socket that gets what passes an interface, without the link
// header. What comes while its buffer is full is missing.
func (h *host) capture(name string) (fd int) {
	h.t.Helper()
	h.must(h.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return errors.Join(
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: h.link(name)}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20))
	}))
	h.t.Cleanup(func() { h.must(unix.Close(fd)) })
	return fd
}
