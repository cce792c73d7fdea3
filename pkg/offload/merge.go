package offload

import (
	"bytes"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// maxMerge bounds the packets of a super-packet. The kernel refuses UDP ones of
// more than UDP_MAX_SEGMENTS, 64 before Linux 6.9 (virtio_net_hdr_to_skb,
// linux/virtio_net.h). TCP reaches maxPacket first.
const maxMerge = 64

// maxPacket is the largest super-packet: the total length of an IPv4 packet. IPv6
// takes 40 bytes more, the kernel's GSO does not (GSO_LEGACY_MAX_SIZE,
// linux/netdevice.h).
const maxPacket = 65535

// MergeConfig selects the flows to merge: those whose super-packets the TUN takes. UDP
// is that of both families, TCP that over IPv4.
type MergeConfig struct{ TCP, TCPv6, UDP bool }

// Merger joins consecutive packets of a flow.
//
// It joins the next packet only to the last one. Packets of a train arrive side
// by side, since the receiving kernel's GRO collects by flow too. So all packets
// keep their order, and no flow table is needed.
type Merger struct {
	cfg MergeConfig
	// open is the super-packet that the next packet may continue. It alternates
	// with spare, so that a result of Add lasts until the next call.
	open, spare *super
}

// NewMerger returns an empty Merger.
func NewMerger(cfg MergeConfig) *Merger {
	return &Merger{cfg: cfg, open: new(super), spare: new(super)}
}

// Add adds the next received packet. If pkt does not continue the open
// super-packet, Add returns that one for tun.Writer.Writev: an encoded vnet
// header, then the bytes. Otherwise it returns nil.
//
// The Merger writes to the packets and points into them until their result is
// written out. A result is valid until the next call of Add or Flush.
func (m *Merger) Add(pkt []byte) [][]byte {
	var p packet
	ok := p.parse(pkt, m.cfg)
	if ok && m.open.n > 0 && m.open.join(pkt, &p) {
		return nil
	}
	done := m.Flush()
	m.open.start(pkt, &p, ok)
	return done
}

// Flush returns the open super-packet, or nil. The caller flushes after the last
// packet of a batch, so that no packet waits.
func (m *Merger) Flush() [][]byte {
	if m.open.n == 0 {
		return nil
	}
	m.open, m.spare = m.spare, m.open
	m.open.n = 0
	return m.spare.finish()
}

// super is a packet, or several joined ones, for the TUN.
type super struct {
	hdr  [virtio.HdrLen]byte
	bufs [1 + maxMerge][]byte // hdr, the first packet, payload, payload …
	n    int                  // buffers in use; 0 for none, 2 for a single packet
	len  int                  // bytes of the packet that results

	// sealed: no packet can be joined. The fields below describe the next one
	// otherwise.
	sealed bool
	first  packet
	lastID uint16
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
}

// join appends pkt to s if it continues s; else it returns false.
func (s *super) join(pkt []byte, p *packet) bool {
	if s.sealed || s.n == len(s.bufs) || p.payloadLen > s.first.payloadLen ||
		s.len+p.payloadLen > maxPacket || !s.follows(pkt, p) || !p.intact(pkt) {
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
	if p.ends {
		head[p.ip.len+tcpFlags] |= pkt[p.ip.len+tcpFlags] & (tcpPSH | tcpFIN)
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
// IPv4's ID counts up by one. With DF it has no meaning (RFC 6864, section 4.1)
// and may stay the same, as on Linux's unconnected UDP sockets. A split then
// makes it count: the only change that merging makes.
func (s *super) follows(pkt []byte, p *packet) bool {
	head := s.bufs[1]
	if p.ip != s.first.ip || !s.followsIP(pkt, p) || be32(pkt, p.ip.len) != be32(head, p.ip.len) { // ports
		return false
	}
	if !p.tcp {
		return true
	}
	a, b := head[p.ip.len:s.first.headerLen], pkt[p.ip.len:p.headerLen]
	return p.seq == s.first.seq+uint32(s.len-s.first.headerLen) &&
		be32(a, tcpAck) == be32(b, tcpAck) &&
		a[tcpOffset] == b[tcpOffset] &&
		(a[tcpFlags]^b[tcpFlags])&^(tcpPSH|tcpFIN|tcpCWR) == 0 && b[tcpFlags]&tcpCWR == 0 &&
		be16(a, tcpWindow) == be16(b, tcpWindow) &&
		be16(a, tcpUrgent) == be16(b, tcpUrgent) &&
		bytes.Equal(a[tcpMinLen:], b[tcpMinLen:])
}

// followsIP is follows for the IP header.
func (s *super) followsIP(pkt []byte, p *packet) bool {
	head := s.bufs[1]
	if p.ip.v6 {
		return be32(pkt, 0) == be32(head, 0) && // version, traffic class, flow label
			be16(pkt, ip6Next) == be16(head, ip6Next) && // next header, hop limit
			bytes.Equal(pkt[ip6Src:ip6Len], head[ip6Src:ip6Len])
	}
	if be16(pkt, 0) != be16(head, 0) || // version, header length, TOS
		be32(pkt, ipFrag) != be32(head, ipFrag) || // flags, offset, TTL, protocol
		be32(pkt, ipSrc) != be32(head, ipSrc) || be32(pkt, ipDst) != be32(head, ipDst) {
		return false
	}
	step := p.id - s.lastID
	return step == 1 || step == 0 && be16(pkt, ipFrag)&ipDontFragment != 0
}

// finish writes the headers and returns the buffers. A single packet stays as
// it is. A merged one gets the headers of a kernel's own super-packet: total
// lengths, a valid IPv4 checksum, and in the transport checksum's field the sum of
// the pseudo header, which the kernel or a network card completes.
func (s *super) finish() [][]byte {
	var h virtio.NetHdr
	if s.n > 2 {
		head := s.bufs[1]
		field := udpCsum
		if s.first.tcp {
			field = tcpCsum
		}
		h = virtio.NetHdr{
			Flags:      virtio.FlagNeedsCsum,
			GSOType:    virtio.GSOUDPL4,
			HdrLen:     uint16(s.first.headerLen),
			GSOSize:    uint16(s.first.payloadLen),
			CsumStart:  uint16(s.first.ip.len),
			CsumOffset: uint16(field),
		}
		l4, n := head[s.first.ip.len:], s.len-s.first.ip.len
		switch {
		case !s.first.tcp:
			putBE16(l4, udpLength, uint16(n))
		case l4[tcpFlags]&tcpCWR != 0:
			h.GSOType = tcpGSO(s.first.ip) | virtio.GSOECN
		default:
			h.GSOType = tcpGSO(s.first.ip)
		}
		s.first.ip.setLength(head, s.len)
		putBE16(l4, field, checksum.Fold(s.first.ip.pseudo(head)+uint64(n)))
	}
	h.Encode(&s.hdr)
	return s.bufs[:s.n]
}

// packet holds the header fields that the Merger compares.
type packet struct {
	ip         ip
	tcp        bool
	headerLen  int
	payloadLen int
	id         uint16 // IPv4's
	seq        uint32
	ends       bool // TCP: PSH or FIN, after which no packet is joined
}

// parse reads the headers of b. It returns true if b can be a segment of a
// super-packet, one that a Splitter restores exactly. It leaves checksums to
// intact: most packets are never joined.
//
// Excluded are IPv4 options, IPv6 extension headers, fragments, trailing bytes,
// packets without payload, UDP without a checksum, and TCP flags other than ACK, PSH,
// FIN, ECE and CWR.
func (p *packet) parse(b []byte, cfg MergeConfig) bool {
	if !p.parseIP(b) {
		return false
	}
	tcp := cfg.TCP
	if p.ip.v6 {
		tcp = cfg.TCPv6
	}
	l4 := b[p.ip.len:]
	switch p.ip.proto {
	case protoTCP:
		if !tcp || len(l4) < tcpMinLen {
			return false
		}
		flags := l4[tcpFlags]
		headerLen := int(l4[tcpOffset]>>4) * 4
		if headerLen < tcpMinLen || headerLen >= len(l4) ||
			flags&(tcpACK|tcpSYN|tcpRST|tcpURG) != tcpACK {
			return false
		}
		p.tcp, p.headerLen = true, p.ip.len+headerLen
		p.seq = be32(l4, tcpSeq)
		p.ends = flags&(tcpPSH|tcpFIN) != 0
	case protoUDP:
		if !cfg.UDP || len(l4) == udpLen || int(be16(l4, udpLength)) != len(l4) || be16(l4, udpCsum) == 0 {
			return false
		}
		p.tcp, p.headerLen, p.ends = false, p.ip.len+udpLen, false
	default:
		return false
	}
	p.payloadLen = len(b) - p.headerLen
	return true
}

// parseIP is parse for the IP header.
func (p *packet) parseIP(b []byte) bool {
	switch {
	case len(b) >= ipMinLen+udpLen && b[0] == 4<<4|ipMinLen/4:
		p.ip, p.id = ip{len: ipMinLen, proto: b[ipProto]}, be16(b, ipID)
		return int(be16(b, ipTotalLen)) == len(b) && be16(b, ipFrag)&^ipDontFragment == 0
	case len(b) >= ip6Len+udpLen && b[0]>>4 == 6:
		p.ip, p.id = ip{v6: true, len: ip6Len, proto: b[ip6Next]}, 0
		return ip6Len+int(be16(b, ip6PayloadLen)) == len(b)
	}
	return false
}

// intact verifies the checksums of b, and their form: 0xffff and 0 are the same
// sum, and a Splitter writes only one of them.
func (p *packet) intact(b []byte) bool {
	l4 := b[p.ip.len:]
	if p.tcp && be16(l4, tcpCsum) == 0xffff {
		return false
	}
	if !p.ip.v6 && (be16(b, ipCsum) == 0xffff || !checksum.Valid(checksum.Add(0, b[:ipMinLen]))) {
		return false
	}
	return checksum.Valid(checksum.Add(p.ip.pseudo(b)+uint64(len(l4)), l4))
}
