package bpf

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Where a frame ends up.
const (
	taken  = "kernel path" // decapsulated, passed to the device
	socket = "socket"
	none   = "nowhere"
)

// TestAdmit sends host b frames as from host a, each wrong or odd in one way.
func TestAdmit(t *testing.T) {
	eachFamilies(t, func(t *testing.T, f families) {
		eachHook(t, func(t *testing.T, old bool) {
			if old && f.inner != f.outer {
				return // TestOldMixed
			}
			t.Run("after GRO", func(t *testing.T) { testAdmit(t, f, old, "on") })
			t.Run("before GRO", func(t *testing.T) { testAdmit(t, f, old, "off") })
		})
	})
}

// admitCase is a change of a good frame, and what becomes of it.
type admitCase struct {
	change func(*frame)
	where  string
	reason string // of the drop
	tos    byte   // that the receiver sees
}

// addressCases are frames whose addresses do not belong together. They are from host a
// to b; c is another peer.
func addressCases(f families, b, c *host) map[string]admitCase {
	nobody := [2]netip.Addr{netip.MustParseAddr("10.5.77.1"), netip.MustParseAddr("fd00:5:0:77::1")}[f.inner]
	outside := [2]netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2001:db8::8")}[f.inner]
	underlay := [2]netip.Addr{b.Addr().Addr(), netip.MustParseAddr("fd00:77::1")}[f.inner]
	stranger := [2]netip.Addr{netip.MustParseAddr("192.168.77.200"), netip.MustParseAddr("fd00:77::200")}[f.outer]
	from := func(a netip.Addr) func(*frame) { return func(f *frame) { f.source = a } }
	to := func(a netip.Addr) func(*frame) { return func(f *frame) { f.destination = a } }
	return map[string]admitCase{
		"host without a lease":          {func(f *frame) { f.outerSource = stranger }, none, "unknown_outer_source", 0},
		"subnet of another host":        {from(c.inner()), none, "inner_source_mismatch", 0},
		"subnet of nobody":              {from(nobody), none, "inner_source_mismatch", 0},
		"source outside of the network": {from(outside), none, "inner_source_mismatch", 0},
		"our own subnet":                {from(b.inner().Next()), none, "inner_source_mismatch", 0},
		"to another host's subnet":      {to(c.inner()), none, "inner_destination_mismatch", 0},
		"to the underlay":               {to(underlay), none, "inner_destination_mismatch", 0},
		"another address":               {func(f *frame) { f.outerDestination = c.local() }, none, "", 0},
	}
}

// congestionCases are those of RFC 6040 figure 4: only outer CE and ECT(1) are copied.
var congestionCases = map[string]admitCase{
	"DSCP and mark":    {change: func(f *frame) { f.outerTOS, f.tos = 0x2a, 0x51 }, where: taken, tos: 0x51},
	"CE on ECT(0)":     {change: func(f *frame) { f.outerTOS, f.tos = 3, 2 }, where: taken, tos: 3},
	"CE on ECT(1)":     {change: func(f *frame) { f.outerTOS, f.tos = 3, 0xb9 }, where: taken, tos: 0xbb},
	"CE on CE":         {change: func(f *frame) { f.outerTOS, f.tos = 3, 3 }, where: taken, tos: 3},
	"ECT(1) on ECT(0)": {change: func(f *frame) { f.outerTOS, f.tos = 1, 2 }, where: taken, tos: 1},
	"ECT(0) on ECT(1)": {change: func(f *frame) { f.outerTOS, f.tos = 2, 1 }, where: taken, tos: 1},
	"ECT(1) on none":   {change: func(f *frame) { f.outerTOS, f.tos = 1, 0 }, where: taken},
	"none on CE":       {change: func(f *frame) { f.tos = 3 }, where: taken, tos: 3},
	"CE on none":       {change: func(f *frame) { f.outerTOS = 3 }, where: none, reason: "congestion_mark_lost"},
}

// lengthCases are frames whose lengths are wrong, or whose kind is another.
func lengthCases(f families) map[string]admitCase {
	largest := f.mtu() - f.inner.HeaderLen() - 8
	version := byte(6)
	if f.inner == inet.IPv6 {
		version = 4
	}
	return map[string]admitCase{
		"good":       {change: func(*frame) {}, where: taken},
		"padded":     {change: func(f *frame) { f.padding = make([]byte, 18) }, where: taken},
		"other port": {change: func(f *frame) { f.sourcePort = 1 }, where: taken},
		"as large":   {change: func(f *frame) { f.payload = make([]byte, largest) }, where: taken},

		"with a checksum":        {change: func(f *frame) { f.checksum = udpSum(f) }, where: socket},
		"above the device's MTU": {change: func(f *frame) { f.payload = make([]byte, largest+1) }, where: socket},
		"two packets":            {change: func(f *frame) { f.trailer = make([]byte, 20) }, where: socket},
		"inner length too large": {change: func(f *frame) { f.length = 8 }, where: socket},
		"inner length too small": {change: func(f *frame) { f.length = -4 }, where: socket},
		"inner version":          {change: func(f *frame) { f.version = version }, where: socket},
		"UDP length cut":         {change: func(f *frame) { f.udpCut = -1 }, where: socket},
		"UDP length too large":   {change: func(f *frame) { f.udpCut = 1 }, where: none},
		"outer length cut":       {change: func(f *frame) { f.outerCut = -1 }, where: none},
		"outer length too large": {change: func(f *frame) { f.outerCut = 8 }, where: none},
		"outer length of more":   {change: func(f *frame) { f.outerCut, f.padding = 8, make([]byte, 8) }, where: socket},
		"cut short":              {change: func(f *frame) { f.lost = 4 }, where: none},
		"another port of ours":   {change: func(f *frame) { f.port = port + 1 }, where: none},
		"not UDP":                {change: func(f *frame) { f.outerProtocol = 47 }, where: none},
	}
}

// outerIPv4Cases are about what only an outer header of IPv4 has.
func outerIPv4Cases(f families) map[string]admitCase {
	return map[string]admitCase{
		"outer options":  {change: func(f *frame) { f.options = []byte{1, 1, 1, 0} }, where: socket},
		"first fragment": {change: func(f *frame) { f.fragment = 0x2000 }, where: none},
		"last fragment":  {change: func(f *frame) { f.fragment = 1 }, where: none},
		"outer checksum": {change: func(f *frame) { f.sum = 1 }, where: none},
		"options like a UDP header": {change: func(f *frame) {
			// As an IP header, the bytes after them are the good packet's.
			whole := f.bytes()
			f.options, f.raw = whole[20:28], whole[28:]
			// And the checksum is that of a header without them.
			head := ip(0, 0, 0, 17, nil, len(f.bytes())-20, f.outerSource, f.outerDestination)
			head[0], head[10], head[11] = 0x47, 0, 0
			f.sum = checksum(head) - binary.BigEndian.Uint16(f.bytes()[10:])
		}, where: none},
	}
}

// outerIPv6Cases are about extension headers of the datagram: the kernel handles them.
func outerIPv6Cases(f families) map[string]admitCase {
	return map[string]admitCase{
		"destination options": {change: func(f *frame) { // RFC 8200 section 4.6: padding
			f.raw = append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, f.bytes()[40:]...)
			f.outerProtocol = 60
		}, where: socket},
		"first fragment": {change: func(f *frame) { // RFC 8200 section 4.5
			f.raw = append([]byte{17, 0, 0, 1, 0, 0, 0, 1}, f.bytes()[40:40+16]...)
			f.outerProtocol = 44
		}, where: none},
		"whole fragment": {change: func(f *frame) { // RFC 6946
			f.raw = append([]byte{17, 0, 0, 0, 0, 0, 0, 2}, f.bytes()[40:]...)
			f.outerProtocol = 44
		}, where: socket},
	}
}

func testAdmit(t *testing.T, f families, old bool, tso string) {
	lab, hosts := newHostsOf(t, f, old, true, true, true)
	a, b, c := hosts[0], hosts[1], hosts[2]
	// A direct link: the switch may drop malformed IP packets.
	const direct = "direct"
	lab.Wire(a.Host, direct, b.Host, direct, 3000) // fits one buffer, as XDP needs before Linux 5.18
	run(t, b.Host, "ethtool", "-K", direct, "gro", "on", "tso", tso)
	b.attachTo(direct)
	b.hasDecapXDP(direct, tso == "off")
	toSocket := make(chan []byte, 16)
	b.mu.Lock()
	b.odd = func(p []byte) { toSocket <- bytes.Clone(p) }
	b.mu.Unlock()
	device := listenInner(b)
	w := newWire(a, b, direct, direct)

	cases := lengthCases(f)
	ofOuter := outerIPv4Cases(f)
	if f.outer == inet.IPv6 {
		ofOuter = outerIPv6Cases(f)
	}
	for _, more := range []map[string]admitCase{addressCases(f, b, c), congestionCases, ofOuter} {
		maps.Copy(cases, more)
	}
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			f := frame{
				outerSource: a.local(), outerDestination: b.local(),
				source: a.inner(), destination: b.inner(),
			}
			next := f
			next.payload = []byte("next")
			test.change(&f)
			packet := f.bytes()
			want, counted := b.drops(), b.statsOf(a.subnet).RxPackets
			if test.reason != "" {
				want[test.reason]++
			}
			w.send(packet)
			switch test.where {
			case taken:
				if tos, _ := device.receive(t); tos != test.tos {
					t.Errorf("inner TOS is %#02x, want %#02x", tos, test.tos)
				}
			case socket:
				// Behind the headers of IP, with options, and UDP.
				if got := wait(t, toSocket); !bytes.Contains(packet[b.overhead():], got) {
					t.Errorf("the socket got % x of % x", got, packet)
				}
			case none:
				// A wire keeps the order.
				w.send(next.bytes())
				if _, text := device.receive(t); text != "next" {
					t.Errorf("the device got %q", text)
				}
			}
			if n := b.statsOf(a.subnet).RxPackets - counted; (n == 1) == (test.where == socket) {
				t.Errorf("the kernel path counted %d packets", n)
			}
			if got := b.drops(); !maps.Equal(got, want) {
				t.Errorf("drops are %v, want %v", got, want)
			}
			select {
			case got := <-toSocket:
				t.Errorf("the socket got % x", got)
			default:
			}
		})
	}

	if f.outer == inet.IPv6 {
		return
	}
	t.Run("outer fragments", func(t *testing.T) {
		f := frame{
			outerSource: a.local(), outerDestination: b.local(),
			source: a.inner(), destination: b.inner(), payload: make([]byte, 700),
		}
		whole := f.bytes()
		first := bytes.Clone(whole[:20+400])
		second := append(bytes.Clone(whole[:20]), whole[20+400:]...)
		for _, part := range []struct {
			packet   []byte
			fragment uint16
		}{{first, 0x2000}, {second, 400 / 8}} {
			head := ip(0, 0, part.fragment, 17, nil, len(part.packet)-20, a.local(), b.local())
			copy(part.packet, head)
			w.send(part.packet)
		}
		if got := wait(t, toSocket); !bytes.Equal(got, whole[28:]) {
			t.Errorf("the socket got %d bytes, want %d", len(got), len(whole)-28)
		}
	})
}

// wait is for what must come.
func wait[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

// udpSum is the outer UDP checksum that makes f right.
func udpSum(f *frame) uint16 {
	return pseudoSum(f.outerSource, f.outerDestination, f.bytes()[inet.Of(f.outerSource).HeaderLen():])
}

// inner is a socket in a host's subnet.
type inner struct{ *net.UDPConn }

func listenInner(h *host) inner {
	h.t.Helper()
	p, err := h.ListenPacket(h.t.Context(), "udp", netip.AddrPortFrom(h.inner(), echoPort).String())
	h.must(err)
	c := p.(*net.UDPConn)
	h.t.Cleanup(func() { h.must(c.Close()) })
	raw, err := c.SyscallConn()
	h.must(err)
	h.must(raw.Control(func(fd uintptr) {
		if h.families.inner == inet.IPv6 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1)
		}
	}))
	h.must(err)
	return inner{c}
}

// receive gives the TOS or traffic class and the text of the next datagram.
func (s inner) receive(t *testing.T) (tos byte, text string) {
	t.Helper()
	if err := s.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	data, control := make([]byte, 1<<16), make([]byte, 64)
	size, n, _, _, err := s.ReadMsgUDP(data, control)
	if err != nil {
		t.Fatalf("receive from the device: %v", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 || messages[0].Header.Type != unix.IP_TOS && messages[0].Header.Type != unix.IPV6_TCLASS {
		t.Fatalf("control messages %v: %v", messages, err)
	}
	return messages[0].Data[0], string(data[:size])
}
