package offload

import (
	"encoding/binary"

	"github.com/coreos/flannel/pkg/checksum"
)

// Offsets and bits of headers: RFC 791 (IPv4), RFC 8200 (IPv6), RFC 9293 (TCP), RFC
// 768 (UDP).
const (
	ipMinLen   = 20
	ipTotalLen = 2
	ipID       = 4
	ipFrag     = 6
	ipProto    = 9
	ipCsum     = 10
	ipSrc      = 12
	ipDst      = 16

	ipDontFragment = 0x4000
	ipFragMask     = 0x3fff // more fragments, and the offset

	ip6Len        = 40
	ip6PayloadLen = 4
	ip6Next       = 6
	ip6Src        = 8

	protoTCP     = 6
	protoUDP     = 17
	protoHop     = 0  // hop-by-hop options
	protoDstOpts = 60 // destination options

	tcpMinLen  = 20
	tcpMaxLen  = 60
	tcpSeq     = 4
	tcpAck     = 8
	tcpOffset  = 12 // high nibble: header length in words
	tcpFlags   = 13
	tcpWindow  = 14
	tcpCsum    = 16
	tcpUrgent  = 18
	tcpFIN     = 0x01
	tcpSYN     = 0x02
	tcpRST     = 0x04
	tcpPSH     = 0x08
	tcpACK     = 0x10
	tcpURG     = 0x20
	tcpCWR     = 0x80
	udpLen     = 8
	udpLength  = 4
	udpCsum    = 6
	maxHeaders = ip6Len + maxOptions + tcpMaxLen
	// maxOptions is the most that IPv6 extension headers of a super-packet may have.
	maxOptions = 64
)

func be16(b []byte, at int) uint16       { return binary.BigEndian.Uint16(b[at:]) }
func be32(b []byte, at int) uint32       { return binary.BigEndian.Uint32(b[at:]) }
func putBE16(b []byte, at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }
func putBE32(b []byte, at int, v uint32) { binary.BigEndian.PutUint32(b[at:], v) }

// ip is the IP header of a packet.
type ip struct {
	v6 bool
	// len is its length with options and extension headers, in bytes.
	len int
	// proto is the protocol behind it. It is an extension header's if that is no
	// option.
	proto byte
}

// parseIP returns the IP header and the total length of the packet in b. ok is false if
// b does not hold a whole packet. An IPv6 jumbogram (RFC 2675) is none.
func parseIP(b []byte) (header ip, total int, ok bool) {
	if len(b) < ipMinLen {
		return ip{}, 0, false
	}
	switch b[0] >> 4 {
	case 4:
		header = ip{len: int(b[0]&0x0f) * 4, proto: b[ipProto]}
		total = int(be16(b, ipTotalLen))
		return header, total, header.len >= ipMinLen && header.len <= total && total <= len(b)
	case 6:
		if len(b) < ip6Len || b[ip6Next] == protoHop && be16(b, ip6PayloadLen) == 0 {
			return ip{}, 0, false
		}
		total = ip6Len + int(be16(b, ip6PayloadLen))
		if total > len(b) {
			return ip{}, 0, false
		}
		return skipOptions(b[:total]), total, true
	}
	return ip{}, 0, false
}

// skipOptions returns the IPv6 header of a whole packet with the extension headers that
// hold options. A packet whose options are cut ends with them.
func skipOptions(b []byte) ip {
	header := ip{v6: true, len: ip6Len, proto: b[ip6Next]}
	for header.proto == protoHop || header.proto == protoDstOpts {
		at := header.len
		if at+2 > len(b) || at+(int(b[at+1])+1)*8 > len(b) {
			return header
		}
		header.proto, header.len = b[at], at+(int(b[at+1])+1)*8
	}
	return header
}

// pseudo returns the sum of b's pseudo header without the length of what follows the
// header, which is to be added.
func (h ip) pseudo(b []byte) uint64 {
	if h.v6 {
		return checksum.Add(uint64(h.proto), b[ip6Src:ip6Len])
	}
	return checksum.Pseudo4(be32(b, ipSrc), be32(b, ipDst), h.proto, 0)
}

// setLength writes the length of a packet of n bytes to its header, and the checksum if
// the header has one.
func (h ip) setLength(b []byte, n int) {
	if h.v6 {
		putBE16(b, ip6PayloadLen, uint16(n-ip6Len))
		return
	}
	putBE16(b, ipTotalLen, uint16(n))
	putBE16(b, ipCsum, 0)
	putBE16(b, ipCsum, checksum.Finish(checksum.Add(0, b[:h.len])))
}
