package udp

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"pgregory.net/rapid"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// dualTable is a table of both families, inside and outside.
func dualTable() *table {
	t := newTable(tableConfig{
		Config: backend.Config{
			Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, IPv6Network: netip.MustParsePrefix("fd00:5::/48"), IPv6SubnetLen: 64,
			Uplink: uplink.Uplink{MTU: 1500}, IPv6Uplink: uplink.Uplink{MTU: 1500},
		},
		own:   [2]netip.Prefix{netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")},
		outer: both, port: DefaultPort,
	})
	t.interfacesTo = allBy(uplinkIndex)
	for _, l := range []subnet.Lease{dualLease("10.5.2.0/24", "fd00:5:0:2::/64", "192.0.2.2", "2001:db8::2"), dualLease("10.5.3.0/24", "fd00:5:0:3::/64", "192.0.2.3", "2001:db8::3")} {
		t.apply(parts(l))
	}
	return t
}

func dualLease(v4, v6, host4, host6 string) subnet.Lease {
	return subnet.Lease{
		Subnet: netip.MustParsePrefix(v4), IPv6Subnet: netip.MustParsePrefix(v6),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(host4), PublicIPv6: netip.MustParseAddr(host6)},
	}
}

func TestAdmitIPv6(t *testing.T) {
	good := newPacket("fd00:5:0:2::7", "fd00:5:0:1::7", protoUDP, []byte("payload"))
	cut := good[:len(good)-1]
	for _, test := range []struct {
		name, outer string
		packet      packet
		want        reason
	}{
		{"in IPv6", "2001:db8::2", good, admitted},
		{"in IPv4", "192.0.2.2", good, admitted},
		{"IPv4 in IPv6", "2001:db8::2", newPacket("10.5.2.7", "10.5.1.7", protoUDP, nil), admitted},
		{"outer source is no peer's", "2001:db8::9", good, unknownOuterSource},
		{"inner source of another peer", "2001:db8::3", good, innerSourceMismatch},
		{"inner source of another peer in IPv4", "192.0.2.3", good, innerSourceMismatch},
		{"inner source of nobody", "2001:db8::2", newPacket("fd00:5:0:9::7", "fd00:5:0:1::7", protoUDP, nil), innerSourceMismatch},
		{"inner source outside Network", "2001:db8::2", newPacket("fe80::1", "fd00:5:0:1::7", protoUDP, nil), innerSourceMismatch},
		{"inner destination of another peer", "2001:db8::2", newPacket("fd00:5:0:2::7", "fd00:5:0:3::7", protoUDP, nil), innerDestinationMismatch},
		{"inner destination outside", "2001:db8::2", newPacket("fd00:5:0:2::7", "ff02::1", protoUDP, nil), innerDestinationMismatch},
		{"cut", "2001:db8::2", cut, malformed},
		{"bytes behind the end", "2001:db8::2", append(slices.Clone(good), 0), malformed},
		{"half a header", "2001:db8::2", good[:39], malformed},
	} {
		peer, got := dualTable().admit(inet.RawOf(netip.MustParseAddr(test.outer)), uplinkIndex, test.packet)
		if got != test.want || (peer != nil) != (test.want == admitted) {
			t.Errorf("%s: got %v (%s), want %v (%s)", test.name, got, reasonNames[got], test.want, reasonNames[test.want])
		}
	}
	if _, got := dualTable().admit(inet.RawOf(netip.MustParseAddr("2001:db8::2")), uplinkIndex+1, good); got != wrongInterface {
		t.Errorf("by another interface: %s", reasonNames[got])
	}
	if _, got := testTable().admit(inet.RawOf(netip.MustParseAddr("192.0.2.2")), uplinkIndex, good); got != innerSourceMismatch {
		t.Errorf("IPv6 in a network of IPv4: %s", reasonNames[got])
	}
}

// The slots of any network agree with an oracle, as in TestTableOracle.
func TestIPv6SlotsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SampledFrom([]int{32, 48, 56, 60, 63, 64, 65, 80, 112}).Draw(t, "network")
		network := netip.PrefixFrom(netip.MustParseAddr("fd00:5:1:2:3:4:5:6"), bits).Masked()
		s := newSlots(network, rapid.IntRange(bits, 126).Draw(t, "subnetLen"))
		// Addresses that differ in few bits behind the network's.
		addrs := rapid.Custom(func(t *rapid.T) netip.Addr {
			b := network.Addr().As16()
			for _, at := range []int{bits / 8, min(bits/8+1, 15), 15} {
				mask := byte(0xff)
				if at == bits/8 {
					mask >>= bits % 8
				}
				b[at] = b[at]&^mask | rapid.SampledFrom([]byte{0, 1, 0x81, 0xff}).Draw(t, "byte")&mask
			}
			return netip.AddrFrom16(b)
		})
		peers := make(map[netip.Prefix]*peer)
		for range rapid.IntRange(1, 20).Draw(t, "changes") {
			p := netip.PrefixFrom(addrs.Draw(t, "lease"), rapid.IntRange(bits, 127).Draw(t, "bits")).Masked()
			if peers[p] != nil {
				delete(peers, p)
			} else {
				peers[p] = &peer{subnet: p}
			}
			s.relink(p, peers)
		}
		for range 50 {
			a := addrs.Draw(t, "addr")
			var want netip.Prefix
			for p := range peers {
				if p.Contains(a) && (!want.IsValid() || p.Bits() > want.Bits()) {
					want = p
				}
			}
			if got := s.lookup(inet.RawOf(a)); got == nil != !want.IsValid() || got != nil && got.subnet != want {
				t.Fatalf("lookup %v gives %+v, want %v", a, got, want)
			}
		}
		for _, outside := range []string{"fd00:4::1", "fd01::", "::", "10.5.1.1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"} {
			if got := s.lookup(inet.RawOf(netip.MustParseAddr(outside))); got != nil {
				t.Fatalf("lookup %s gives %+v", outside, got)
			}
		}
	})
}

func TestIPv6TableAllocations(t *testing.T) {
	table := dualTable()
	p := newPacket("fd00:5:0:2::7", "fd00:5:0:1::7", protoUDP, nil)
	outer := inet.RawOf(netip.MustParseAddr("2001:db8::2"))
	if n := testing.AllocsPerRun(1000, func() {
		if peer, _ := table.admit(outer, uplinkIndex, p); peer == nil || p.flowHash() == 0 {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func testICMPv6Errors() *icmpErrors {
	return newFamilyErrors(netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("fd00:5:0:1::/64"))
}

// The messages are what the library of the field reads, checksum included.
func TestICMPv6Messages(t *testing.T) {
	offender := newPacket("fd00:5:0:1::7", "fd00:5:0:9::9", protoUDP, make([]byte, 1400))
	e := testICMPv6Errors()
	for _, test := range []struct {
		message []byte
		kind    ipv6.ICMPType
		mtu     uint32
	}{
		{slices.Clone(e.tooBig(offender, 1352)), ipv6.ICMPTypePacketTooBig, 1352},
		{slices.Clone(e.tooBig(offender, 1000)), ipv6.ICMPTypePacketTooBig, 1280},
		{slices.Clone(e.noRoute(offender)), ipv6.ICMPTypeDestinationUnreachable, 0},
	} {
		m := test.message
		if len(m) != maxICMPv6Error || !packet(m).wellFormed() {
			t.Fatalf("%d bytes: % x", len(m), m[:min(len(m), 48)])
		}
		h, err := ipv6.ParseHeader(m)
		if err != nil || h.Src.String() != "fd00:5::" || h.Dst.String() != "fd00:5:0:1::7" || h.NextHeader != protoICMPv6 {
			t.Errorf("header %v, %v", h, err)
		}
		pseudo := slices.Concat(m[8:40], []byte{0, 0, byte((len(m) - 40) >> 8), byte(len(m) - 40), 0, 0, 0, protoICMPv6}, m[40:])
		if sum(pseudo) != 0xffff {
			t.Error("the checksum is wrong")
		}
		body, err := icmp.ParseMessage(protoICMPv6, m[40:])
		if err != nil || body.Type != test.kind || body.Code != 0 || binary.BigEndian.Uint32(m[44:]) != test.mtu {
			t.Errorf("message %+v, MTU %d, %v", body, binary.BigEndian.Uint32(m[44:]), err)
		}
		if quoted := m[48:]; string(quoted) != string(offender[:len(quoted)]) {
			t.Error("it does not quote the offender")
		}
	}
}

func TestICMPv6NotAbout(t *testing.T) {
	const from, to = "fd00:5:0:1::7", "fd00:5:0:9::9"
	options := func(next byte, rest ...byte) []byte { return append([]byte{next, 0, 1, 4, 0, 0, 0, 0}, rest...) }
	fragment := func(next byte, offset uint16, rest ...byte) []byte {
		return append([]byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 1}, rest...)
	}
	kind := func(n byte) []byte { return []byte{n, 0, 0, 0, 0, 0, 0, 0} }
	for _, test := range []struct {
		name   string
		packet packet
		answer bool
	}{
		{"UDP", newPacket(from, to, protoUDP, nil), true},
		{"echo request", newPacket(from, to, protoICMPv6, kind(128)), true},
		{"unreachable", newPacket(from, to, protoICMPv6, kind(1)), false},
		{"too big", newPacket(from, to, protoICMPv6, kind(2)), false},
		{"time exceeded", newPacket(from, to, protoICMPv6, kind(3)), false},
		{"an unknown error", newPacket(from, to, protoICMPv6, kind(100)), false},
		{"redirect", newPacket(from, to, protoICMPv6, kind(137)), false},
		{"ICMPv6 without a type", newPacket(from, to, protoICMPv6, nil), false},
		{"UDP behind options", newPacket(from, to, protoHop, options(protoDstOpts, options(protoUDP, kind(1)...)...)), true},
		{"unreachable behind options", newPacket(from, to, protoDstOpts, options(protoICMPv6, kind(1)...)), false},
		{"first fragment", newPacket(from, to, protoFragment, fragment(protoUDP, 1, kind(0)...)), true},
		{"first fragment of an error", newPacket(from, to, protoFragment, fragment(protoICMPv6, 1, kind(1)...)), false},
		{"later fragment", newPacket(from, to, protoFragment, fragment(protoUDP, 64, kind(0)...)), false},
		{"to multicast", newPacket(from, "ff02::1", protoUDP, nil), false},
		{"from nowhere", newPacket("::", to, protoUDP, nil), false},
		{"from multicast", newPacket("ff02::1", to, protoUDP, nil), false},
		{"from the link", newPacket("fe80::1", to, protoUDP, nil), false},
	} {
		if got := testICMPv6Errors().noRoute(test.packet); (got != nil) != test.answer {
			t.Errorf("%s: answered %v, want %v", test.name, got != nil, test.answer)
		}
	}
}

func TestIPv6FlowHash(t *testing.T) {
	a := newPacket("fd00:5:0:1::7", "fd00:5:0:2::7", protoTCP, make([]byte, 40))
	b := slices.Clone(a)
	b[1], b[3], b[7], b[60] = 1, 2, 3, 4 // traffic class, flow label, hop limit, payload
	if a.flowHash() != b.flowHash() {
		t.Error("packets of a flow differ in hash")
	}
	first, later := newPacket("fd00:5:0:1::7", "fd00:5:0:2::7", protoFragment, []byte{17, 0, 0, 1, 0, 0, 0, 1, 9}), newPacket("fd00:5:0:1::7", "fd00:5:0:2::7", protoFragment, []byte{17, 0, 4, 0, 0, 0, 0, 1, 8})
	if first.flowHash() != later.flowHash() {
		t.Error("fragments differ in hash")
	}
	seen := make(map[uint32]bool)
	for port := range 64 {
		a[41] = byte(port)
		seen[a.flowHash()%txPorts] = true
	}
	if len(seen) != txPorts {
		t.Errorf("64 ports spread over %d ports", len(seen))
	}
}
