package offload

import (
	"bytes"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// super is a packet, or several joined ones, for the TUN.
type super struct {
	hdr  [virtio.HdrLen]byte
	bufs [1 + maxMerge][]byte // hdr, the first packet, payload, payload …
	n    int                  // buffers in use; 0 for none, 2 for a single packet
	len  int                  // bytes of the packet that results

	// sealed: no packet can be joined. The fields below describe the next one
	// otherwise.
	sealed    bool
	first     packet
	lastID    uint16
	nextSeq   uint32 // TCP
	csumField int    // offset in the first packet
}

// start makes s consist of pkt. If pkt is not mergeable, s is sealed.
func (s *super) start(pkt []byte, p *packet, mergeable bool) {
	s.bufs[0], s.bufs[1] = s.hdr[:], pkt
	s.n, s.len = 2, len(pkt)
	s.sealed = !mergeable || p.ends
	if s.sealed {
		return
	}
	s.first, s.lastID = *p, p.id
	s.nextSeq = p.seq + uint32(p.payloadLen)
	s.csumField = ipMinLen + udpCsum
	if p.tcp {
		s.csumField = ipMinLen + tcpCsum
	}
}

// join appends pkt to s if it continues s; else it returns false.
func (s *super) join(pkt []byte, p *packet) bool {
	if s.sealed || s.n == len(s.bufs) || p.payloadLen > s.first.payloadLen ||
		s.len+p.payloadLen > maxPacket || !s.follows(pkt, p) {
		return false
	}
	if !p.intact(pkt) {
		return false
	}
	head := s.bufs[1]
	if s.n == 2 && !s.first.intact(head) {
		s.sealed = true
		return false
	}
	s.bufs[s.n] = pkt[p.headerLen:]
	s.n++
	s.len += p.payloadLen
	s.lastID = p.id
	s.nextSeq += uint32(p.payloadLen)
	if p.ends {
		head[ipMinLen+tcpFlags] |= pkt[ipMinLen+tcpFlags] & (tcpPSH | tcpFIN)
	}
	s.sealed = p.ends || p.payloadLen < s.first.payloadLen
	return true
}

// follows returns true if pkt's headers are those of the segment after s. They
// equal the first packet's except for lengths, checksums, IP ID, TCP sequence
// number and the flags of a first or last segment.
//
// The acknowledgement number must be equal, as in the kernel's GRO
// (tcp_gro_receive, net/ipv4/tcp_offload.c). A super-packet has only one; a lost
// acknowledgement costs the peer a round-trip sample and window growth. The
// window must be equal too, or a split would not restore it; the kernel does not
// require that.
//
// The IP ID counts up by one. With DF it has no meaning (RFC 6864, section 4.1)
// and may stay the same, as on Linux's unconnected UDP sockets. A split then
// makes it count: the only change that merging makes.
func (s *super) follows(pkt []byte, p *packet) bool {
	head := s.bufs[1]
	if be16(pkt, 0) != be16(head, 0) || // version, header length, TOS
		be32(pkt, ipFrag) != be32(head, ipFrag) || // flags, offset, TTL, protocol
		be32(pkt, ipSrc) != be32(head, ipSrc) || be32(pkt, ipDst) != be32(head, ipDst) ||
		be32(pkt, ipMinLen) != be32(head, ipMinLen) { // ports
		return false
	}
	step := p.id - s.lastID
	if step > 1 || step == 0 && be16(pkt, ipFrag)&ipDontFragment == 0 {
		return false
	}
	if !p.tcp {
		return true
	}
	a, b := head[ipMinLen:s.first.headerLen], pkt[ipMinLen:p.headerLen]
	return p.seq == s.nextSeq &&
		be32(a, tcpAck) == be32(b, tcpAck) &&
		a[tcpOffset] == b[tcpOffset] &&
		(a[tcpFlags]^b[tcpFlags])&^(tcpPSH|tcpFIN|tcpCWR) == 0 && b[tcpFlags]&tcpCWR == 0 &&
		be16(a, tcpWindow) == be16(b, tcpWindow) &&
		be16(a, tcpUrgent) == be16(b, tcpUrgent) &&
		bytes.Equal(a[tcpMinLen:], b[tcpMinLen:])
}

// finish writes the headers and returns the buffers. A single packet stays as
// it is. A merged one gets the headers of a kernel's own super-packet: total
// lengths, a valid IP checksum, and in the transport checksum's field the sum of
// the pseudo header, which the kernel or a network card completes.
func (s *super) finish() [][]byte {
	var h virtio.NetHdr
	if s.n > 2 {
		head := s.bufs[1]
		h = virtio.NetHdr{
			Flags:      virtio.FlagNeedsCsum,
			GSOType:    virtio.GSOUDPL4,
			HdrLen:     uint16(s.first.headerLen),
			GSOSize:    uint16(s.first.payloadLen),
			CsumStart:  ipMinLen,
			CsumOffset: uint16(s.csumField - ipMinLen),
		}
		n := s.len - ipMinLen
		switch {
		case !s.first.tcp:
			putBE16(head, ipMinLen+udpLength, uint16(n))
		case head[ipMinLen+tcpFlags]&tcpCWR != 0:
			h.GSOType = virtio.GSOTCPv4 | virtio.GSOECN
		default:
			h.GSOType = virtio.GSOTCPv4
		}
		putBE16(head, ipTotalLen, uint16(s.len))
		setIPv4Csum(head, ipMinLen)
		putBE16(head, s.csumField, checksum.Fold(pseudo(head, n)))
	}
	h.Encode(&s.hdr)
	return s.bufs[:s.n]
}
