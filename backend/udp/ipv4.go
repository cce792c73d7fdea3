package udp

import (
	"encoding/binary"
	"net/netip"
)

// IPv4 header layout, RFC 791 section 3.1.
const (
	ipv4HeaderLen = 20
	maxHeader     = 60 // with options
	// maxPacket is the largest IPv4 packet, by its 16-bit total length.
	maxPacket = 1<<16 - 1

	flagDF     = 0x4000
	flagMF     = 0x2000 // more fragments follow
	offsetMask = 0x1fff // in units of 8 bytes

	protoICMP = 1
)

// encapsulation is the length of the outer headers: IPv4 without options, and UDP.
const encapsulation = ipv4HeaderLen + 8

// ipv4Packet is one IPv4 packet, from its version field on. The other methods
// require that wellFormed is true.
type ipv4Packet []byte

// wellFormed returns true if p is exactly one IPv4 packet: the version is 4, the
// header is whole, and the total length is the length of p.
func (p ipv4Packet) wellFormed() bool {
	return len(p) >= ipv4HeaderLen && p[0]>>4 == 4 &&
		p.headerLen() >= ipv4HeaderLen && p.headerLen() <= len(p) &&
		int(binary.BigEndian.Uint16(p[2:])) == len(p)
}

func (p ipv4Packet) headerLen() int      { return int(p[0]&0xf) * 4 }
func (p ipv4Packet) source() uint32      { return binary.BigEndian.Uint32(p[12:]) }
func (p ipv4Packet) destination() uint32 { return binary.BigEndian.Uint32(p[16:]) }
func (p ipv4Packet) protocol() byte      { return p[9] }

// dontFragment returns the DF bit.
func (p ipv4Packet) dontFragment() bool { return p.flags()&flagDF != 0 }

// laterFragment returns true if p is a fragment other than the first.
func (p ipv4Packet) laterFragment() bool { return p.flags()&offsetMask != 0 }

func (p ipv4Packet) flags() uint16 { return binary.BigEndian.Uint16(p[6:]) }

// flowHash is equal for all packets of a flow: those with the same addresses,
// protocol and ports. Later fragments lack the ports, so fragments have a hash of
// their own. They stay together, but can overtake whole datagrams of the flow, as
// on any network card that hashes.
func (p ipv4Packet) flowHash() uint32 {
	h := uint64(p.source())<<32 | uint64(p.destination())
	if n := p.headerLen(); p.flags()&(flagMF|offsetMask) == 0 && len(p) >= n+4 {
		h ^= uint64(binary.BigEndian.Uint32(p[n:])) << 8
	}
	h ^= uint64(p.protocol())
	// Fibonacci hashing: the upper half of the product depends on every bit.
	return uint32(h * 0x9e3779b97f4a7c15 >> 32)
}

// be32 returns an IPv4 address as the number that the packet path compares.
func be32(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}

// maskOf returns the network mask of a prefix length in 1..32.
func maskOf(bits int) uint32 { return ^uint32(0) << (32 - bits) }
