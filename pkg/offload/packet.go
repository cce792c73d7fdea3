package offload

import (
	"github.com/coreos/flannel/pkg/checksum"
)

// packet holds the header fields that the Merger compares.
type packet struct {
	tcp        bool
	headerLen  int
	payloadLen int
	id         uint16
	seq        uint32
	ends       bool // TCP: PSH or FIN, after which no packet is joined
}

// parse reads the headers of b. It returns true if b can be a segment of a
// super-packet, one that a Splitter restores exactly. It leaves checksums to
// intact: most packets are never joined.
//
// Excluded are IPv4 options, fragments, trailing bytes, packets without
// payload, UDP without a checksum, and TCP flags other than ACK, PSH, FIN, ECE
// and CWR.
func (p *packet) parse(b []byte, cfg MergeConfig) bool {
	if len(b) < ipMinLen+udpLen || b[0] != 4<<4|ipMinLen/4 ||
		int(be16(b, ipTotalLen)) != len(b) || be16(b, ipFrag)&^ipDontFragment != 0 {
		return false
	}
	l4 := b[ipMinLen:]
	p.id = be16(b, ipID)
	switch b[ipProto] {
	case protoTCP:
		if !cfg.TCP || len(l4) < tcpMinLen {
			return false
		}
		flags := l4[tcpFlags]
		headerLen := int(l4[tcpOffset]>>4) * 4
		if headerLen < tcpMinLen || headerLen >= len(l4) ||
			flags&(tcpACK|tcpSYN|tcpRST|tcpURG) != tcpACK {
			return false
		}
		p.tcp, p.headerLen = true, ipMinLen+headerLen
		p.seq = be32(l4, tcpSeq)
		p.ends = flags&(tcpPSH|tcpFIN) != 0
	case protoUDP:
		if !cfg.UDP || len(l4) == udpLen || int(be16(l4, udpLength)) != len(l4) || be16(l4, udpCsum) == 0 {
			return false
		}
		p.tcp, p.headerLen, p.ends = false, ipMinLen+udpLen, false
	default:
		return false
	}
	p.payloadLen = len(b) - p.headerLen
	return true
}

// intact verifies both checksums of b, and their form: 0xffff and 0 are the same
// sum, and a Splitter writes only one of them.
func (p *packet) intact(b []byte) bool {
	l4 := b[ipMinLen:]
	if p.tcp && be16(l4, tcpCsum) == 0xffff || be16(b, ipCsum) == 0xffff {
		return false
	}
	return checksum.Valid(checksum.Add(0, b[:ipMinLen])) &&
		checksum.Valid(checksum.Add(pseudo(b, len(l4)), l4))
}
