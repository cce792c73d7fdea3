package udp

import (
	"encoding/binary"

	"github.com/coreos/flannel/pkg/inet"
)

// Header layouts, RFC 791 section 3.1 and RFC 8200 section 3.
const (
	ipv4HeaderLen = 20
	ipv6HeaderLen = 40
	maxHeader     = 60 // of IPv4, with options
	// maxPacket is the largest packet, by a length of 16 bits, which in IPv6 does not
	// include the header.
	maxPacket = ipv6HeaderLen + maxIPv4
	maxIPv4   = 1<<16 - 1

	flagDF     = 0x4000
	flagMF     = 0x2000 // more fragments follow
	offsetMask = 0x1fff // in units of 8 bytes

	protoHop      = 0
	protoICMP     = 1
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoICMPv6   = 58
	protoDstOpts  = 60
)

// udpHeaderLen is the length of the outer UDP header.
const udpHeaderLen = 8

// overhead returns the length of the outer headers: IP without options, and UDP.
func overhead(outer inet.Family) int { return outer.HeaderLen() + udpHeaderLen }

// packet is one IP packet, from its version field on. The other methods require that
// wellFormed is true.
type packet []byte

// wellFormed returns true if p is exactly one IPv4 or IPv6 packet: the header is whole,
// and its length field is the length of p.
func (p packet) wellFormed() bool {
	if len(p) < ipv4HeaderLen {
		return false
	}
	switch p[0] >> 4 {
	case 4:
		return p.headerLen() >= ipv4HeaderLen && p.headerLen() <= len(p) &&
			int(binary.BigEndian.Uint16(p[2:])) == len(p)
	case 6:
		return len(p) >= ipv6HeaderLen && ipv6HeaderLen+int(binary.BigEndian.Uint16(p[4:])) == len(p)
	}
	return false
}

func (p packet) family() inet.Family {
	if p[0]>>4 == 6 {
		return inet.IPv6
	}
	return inet.IPv4
}

func (p packet) source() inet.Raw {
	if p.family() == inet.IPv6 {
		return inet.Raw6(p[8:])
	}
	return inet.Raw4(binary.BigEndian.Uint32(p[12:]))
}

func (p packet) destination() inet.Raw {
	if p.family() == inet.IPv6 {
		return inet.Raw6(p[24:])
	}
	return inet.Raw4(binary.BigEndian.Uint32(p[16:]))
}

// addresses returns the bytes of source and destination.
func (p packet) addresses() []byte {
	if p.family() == inet.IPv6 {
		return p[8:40]
	}
	return p[12:20]
}

// headerLen is the length of an IPv4 header.
func (p packet) headerLen() int { return int(p[0]&0xf) * 4 }

// dontFragment returns true if no router may fragment p: IPv4's DF bit, and all of IPv6.
func (p packet) dontFragment() bool { return p.family() == inet.IPv6 || p.flags()&flagDF != 0 }

// flags returns IPv4's flags and offset.
func (p packet) flags() uint16 { return binary.BigEndian.Uint16(p[6:]) }

// flowHash is equal for all packets of a flow: those with the same addresses,
// protocol and ports. Later fragments lack the ports, so fragments have a hash of
// their own. They stay together, but can overtake whole datagrams of the flow, as
// on any network card that hashes. The ports behind IPv6 extension headers do not
// count.
func (p packet) flowHash() uint32 {
	var h uint64
	at, proto, ports := ipv6HeaderLen, byte(0), true
	if p.family() == inet.IPv6 {
		src, dst := inet.Raw6(p[8:]), inet.Raw6(p[24:])
		// The parts differ in weight, so that an exchange of two does not cancel out.
		h, proto = src.Hi+3*src.Lo+5*dst.Hi+7*dst.Lo, p[6]
		ports = proto == protoTCP || proto == protoUDP
	} else {
		h, proto = binary.BigEndian.Uint64(p[12:]), p[9]
		at, ports = p.headerLen(), p.flags()&(flagMF|offsetMask) == 0
	}
	if ports && len(p) >= at+4 {
		h ^= uint64(binary.BigEndian.Uint32(p[at:])) << 8
	}
	h ^= uint64(proto)
	// Fibonacci hashing: the upper half of the product depends on every bit.
	return uint32(h * 0x9e3779b97f4a7c15 >> 32)
}

// payload returns the protocol behind IP header and extension headers, where it begins,
// and whether p is a fragment other than the first. The protocol is an extension
// header's if it cannot be read.
func (p packet) payload() (proto byte, at int, laterFragment bool) {
	if p.family() == inet.IPv4 {
		return p[9], p.headerLen(), p.flags()&offsetMask != 0
	}
	proto, at = p[6], ipv6HeaderLen
	for len(p) >= at+8 {
		size := (int(p[at+1]) + 1) * 8
		switch proto {
		case protoHop, protoRouting, protoDstOpts:
		case protoFragment:
			size = 8
			if binary.BigEndian.Uint16(p[at+2:])&^7 != 0 {
				return proto, at, true
			}
		default:
			return proto, at, false
		}
		proto, at = p[at], at+size
	}
	return proto, at, false
}
