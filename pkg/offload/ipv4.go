package offload

import (
	"encoding/binary"

	"github.com/coreos/flannel/pkg/checksum"
)

// Offsets and bits of headers: RFC 791 (IPv4), RFC 9293 (TCP), RFC 768 (UDP).
const (
	ipMinLen   = 20
	ipMaxLen   = 60
	ipTotalLen = 2
	ipID       = 4
	ipFrag     = 6
	ipProto    = 9
	ipCsum     = 10
	ipSrc      = 12
	ipDst      = 16

	ipDontFragment = 0x4000
	ipFragMask     = 0x3fff // more fragments, and the offset

	protoTCP = 6
	protoUDP = 17

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
	maxHeaders = ipMaxLen + tcpMaxLen
)

func be16(b []byte, at int) uint16       { return binary.BigEndian.Uint16(b[at:]) }
func be32(b []byte, at int) uint32       { return binary.BigEndian.Uint32(b[at:]) }
func putBE16(b []byte, at int, v uint16) { binary.BigEndian.PutUint16(b[at:], v) }
func putBE32(b []byte, at int, v uint32) { binary.BigEndian.PutUint32(b[at:], v) }

// ipv4Lengths returns the header length and the total length of the IPv4 packet
// in b. ok is false if b does not hold a whole IPv4 packet.
func ipv4Lengths(b []byte) (header, total int, ok bool) {
	if len(b) < ipMinLen || b[0]>>4 != 4 {
		return 0, 0, false
	}
	header = int(b[0]&0x0f) * 4
	total = int(be16(b, ipTotalLen))
	return header, total, header >= ipMinLen && header <= total && total <= len(b)
}

// pseudo returns the sum of b's pseudo header; n is the length of its transport
// header and payload.
func pseudo(b []byte, n int) uint64 {
	return checksum.Pseudo4(be32(b, ipSrc), be32(b, ipDst), b[ipProto], uint16(n))
}

// setIPv4Csum writes the checksum of the IPv4 header in the first n bytes of b.
func setIPv4Csum(b []byte, n int) {
	putBE16(b, ipCsum, 0)
	putBE16(b, ipCsum, checksum.Finish(checksum.Add(0, b[:n])))
}
