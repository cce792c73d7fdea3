package udp

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

func testICMPErrors(own string) *icmpErrors {
	return newFamilyErrors(netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix(own))
}

// The message is what the library of the field reads, checksums included.
func TestICMPUnreachable(t *testing.T) {
	offender := newPacket("10.5.1.7", "10.5.9.9", 17, make([]byte, 1400))
	m := testICMPErrors("10.5.1.0/24").tooBig(offender, 1372)
	if len(m) != maxICMPError || !packet(m).wellFormed() {
		t.Fatalf("%d bytes: % x", len(m), m[:min(len(m), 28)])
	}
	h, err := ipv4.ParseHeader(m)
	if err != nil || h.Src.String() != "10.5.0.0" || h.Dst.String() != "10.5.1.7" || h.Protocol != protoICMP {
		t.Errorf("header %v, %v", h, err)
	}
	if sum(m[:ipv4HeaderLen]) != 0xffff || sum(m[ipv4HeaderLen:]) != 0xffff {
		t.Error("a checksum is wrong")
	}
	body, err := icmp.ParseMessage(protoICMP, m[ipv4HeaderLen:])
	if err != nil || body.Type != ipv4.ICMPTypeDestinationUnreachable || body.Code != codeFragNeeded {
		t.Errorf("message %+v, %v", body, err)
	}
	if mtu := binary.BigEndian.Uint16(m[ipv4HeaderLen+6:]); mtu != 1372 {
		t.Errorf("next-hop MTU %d", mtu)
	}
	if quoted := m[ipv4HeaderLen+icmpHeader:]; string(quoted) != string(offender[:len(quoted)]) {
		t.Error("it does not quote the offender")
	}
}

// sum is RFC 1071's, by the letter.
func sum(b []byte) uint32 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		s += uint32(b[i]) << 8
		if i+1 < len(b) {
			s += uint32(b[i+1])
		}
		s = s>>16 + s&0xffff
	}
	return s
}

func TestICMPSourceIsNobodys(t *testing.T) {
	if got := testICMPErrors("10.5.0.0/24").source.String(); got != "10.5.255.255" {
		t.Errorf("with the first subnet ours, the source is %s", got)
	}
}

func TestICMPNotAbout(t *testing.T) {
	laterFragment := newPacket("10.5.1.7", "10.5.9.9", 17, nil)
	laterFragment[7] = 1
	firstFragment := newPacket("10.5.1.7", "10.5.9.9", 17, nil)
	firstFragment[6] = 0x20
	icmpType := func(n byte) []byte { return []byte{n, 0, 0, 0, 0, 0, 0, 0} }
	for _, test := range []struct {
		name   string
		packet packet
		answer bool
	}{
		{"UDP", newPacket("10.5.1.7", "10.5.9.9", 17, nil), true},
		{"first fragment", firstFragment, true},
		{"echo request", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(8)), true},
		{"later fragment", laterFragment, false},
		{"unreachable", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(3)), false},
		{"source quench", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(4)), false},
		{"redirect", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(5)), false},
		{"time exceeded", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(11)), false},
		{"parameter problem", newPacket("10.5.1.7", "10.5.9.9", 1, icmpType(12)), false},
		{"ICMP without a type", newPacket("10.5.1.7", "10.5.9.9", 1, nil), false},
		{"to multicast", newPacket("10.5.1.7", "224.0.0.9", 17, nil), false},
		{"to broadcast", newPacket("10.5.1.7", "255.255.255.255", 17, nil), false},
		{"from nowhere", newPacket("0.0.0.0", "10.5.9.9", 17, nil), false},
		{"from multicast", newPacket("224.0.0.9", "10.5.9.9", 17, nil), false},
		{"from loopback", newPacket("127.0.0.1", "10.5.9.9", 17, nil), false},
	} {
		if got := testICMPErrors("10.5.1.0/24").noRoute(test.packet); (got != nil) != test.answer {
			t.Errorf("%s: answered %v, want %v", test.name, got != nil, test.answer)
		}
	}
}

func TestICMPRateLimit(t *testing.T) {
	errs := testICMPErrors("10.5.1.0/24")
	errs.limiter.SetLimit(0) // no refill while the test runs
	p := newPacket("10.5.1.7", "10.5.9.9", 17, nil)
	answered := 0
	for range 10 * icmpBurst {
		if errs.noRoute(p) != nil {
			answered++
		}
	}
	if answered != icmpBurst {
		t.Errorf("%d answers to %d packets at once, want %d", answered, 10*icmpBurst, icmpBurst)
	}
	if n := testing.AllocsPerRun(100, func() { errs.noRoute(p) }); n != 0 {
		t.Errorf("%v allocations for a refused answer", n)
	}
}
