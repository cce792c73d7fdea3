package offload

import (
	"errors"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// Reasons for which Splitter.Reset refuses a packet.
var (
	// ErrNotIP reports bytes that are not a whole IP packet.
	ErrNotIP = errors.New("not an IP packet")
	// ErrChecksumRange reports a vnet header whose checksum lies outside of the
	// packet's payload.
	ErrChecksumRange = errors.New("checksum lies outside of the packet")
	// ErrGSO reports a vnet header whose segmentation does not match the packet.
	ErrGSO = errors.New("packet and segmentation do not match")
)

// maxDatagram is the largest payload of a UDP datagram over IPv4: 65535 less
// the IP and UDP headers. It bounds the bytes of one UDP_SEGMENT send
// (udp_sendmsg, net/ipv4/udp.c).
const maxDatagram = 65507

// maxSegments bounds the packets of a train: the most that every Linux takes in
// one send (UDP_MAX_SEGMENTS, linux/udp.h: 64, later 128).
const maxSegments = 64

// Train is a run of whole packets with one destination.
type Train struct {
	// Bufs are the packets' bytes. Each packet begins at a buffer's beginning.
	Bufs [][]byte
	// SegLen is the length of each packet but the last, in bytes. The last one
	// has from 1 to SegLen.
	SegLen int
	// Count is the number of packets, Bytes the sum of their lengths.
	Count, Bytes int
}

// Splitter cuts packets that a tun.Queue returns into trains. The zero value is
// ready for use.
type Splitter struct {
	// pkt is the super-packet; nil after its last train.
	pkt       []byte
	payload   []byte // of the trains that follow
	ip        ip
	pseudo    uint64 // sum of the pseudo header but for the length
	headerLen int    // IP and transport
	tcp       bool
	segSize   int
	sent      int    // segments before payload
	seq       uint32 // of the first segment
	id        uint16 // of the first segment

	bufs   [2 * maxSegments][]byte
	header [maxSegments * maxHeaders]byte
}

// Reset starts to split pkt, whose vnet header is h. The Splitter writes to pkt,
// and its trains point into it: the caller must not change pkt before the last
// train is sent. After an error there are no trains.
func (s *Splitter) Reset(h *virtio.NetHdr, pkt []byte) error {
	s.pkt = nil
	header, total, ok := parseIP(pkt)
	if !ok {
		return ErrNotIP
	}
	pkt = pkt[:total] // the rest is padding
	if h.GSOType == virtio.GSONone {
		if h.Flags&virtio.FlagNeedsCsum != 0 {
			if err := completeCsum(h, pkt, header); err != nil {
				return err
			}
		}
		s.pkt, s.segSize = pkt, 0
		return nil
	}
	s.tcp = h.GSOType&^virtio.GSOECN == tcpGSO(header)
	headerLen := header.len + udpLen
	switch {
	case s.tcp && header.proto == protoTCP && total >= header.len+tcpMinLen:
		headerLen = header.len + int(pkt[header.len+tcpOffset]>>4)*4
		if headerLen < header.len+tcpMinLen {
			return ErrGSO
		}
		s.seq = be32(pkt, header.len+tcpSeq)
	case h.GSOType == virtio.GSOUDPL4 && header.proto == protoUDP:
	default:
		return ErrGSO
	}
	if h.GSOSize == 0 || headerLen > min(total, maxHeaders) || headerLen+int(h.GSOSize) > maxDatagram ||
		!header.v6 && be16(pkt, ipFrag)&ipFragMask != 0 {
		return ErrGSO
	}
	s.pkt, s.payload = pkt, pkt[headerLen:]
	s.ip, s.headerLen, s.segSize, s.sent = header, headerLen, int(h.GSOSize), 0
	s.pseudo = header.pseudo(pkt)
	if !header.v6 {
		s.id = be16(pkt, ipID)
	}
	return nil
}

// tcpGSO returns the GSO type of TCP super-packets behind an IP header.
func tcpGSO(h ip) uint8 {
	if h.v6 {
		return virtio.GSOTCPv6
	}
	return virtio.GSOTCPv4
}

// completeCsum carries out VIRTIO_NET_HDR_F_NEEDS_CSUM: the field holds the sum
// of the pseudo header, and gets the checksum from CsumStart to the end.
func completeCsum(h *virtio.NetHdr, pkt []byte, header ip) error {
	start := int(h.CsumStart)
	field := start + int(h.CsumOffset)
	if start < header.len || field+2 > len(pkt) {
		return ErrChecksumRange
	}
	sum := checksum.Finish(checksum.Add(0, pkt[start:]))
	if sum == 0 && header.proto == protoUDP {
		sum = 0xffff // RFC 768: zero would mean that there is no checksum
	}
	putBE16(pkt, field, sum)
	return nil
}

// Next writes the next train to t. It returns false after the last one. The
// train is valid until the next call of Next or Reset.
func (s *Splitter) Next(t *Train) bool {
	if s.pkt == nil {
		return false
	}
	if s.segSize == 0 {
		s.bufs[0] = s.pkt
		*t = Train{Bufs: s.bufs[:1], SegLen: len(s.pkt), Count: 1, Bytes: len(s.pkt)}
		s.pkt = nil
		return true
	}
	whole := s.headerLen + s.segSize
	limit := min(maxSegments, maxDatagram/whole)
	bufs, scratch := s.bufs[:0], s.header[:]
	bytes, count := 0, 0
	for last := false; !last && count < limit; count++ {
		n := s.segSize
		if n >= len(s.payload) {
			n, last = len(s.payload), true
		}
		header := scratch[:s.headerLen]
		scratch = scratch[s.headerLen:]
		s.writeHeader(header, s.payload[:n], last)
		bufs = append(bufs, header)
		if n > 0 { // a super-packet without payload is one packet: its headers
			bufs = append(bufs, s.payload[:n])
		}
		s.payload = s.payload[n:]
		bytes += len(header) + n
		if last {
			s.pkt = nil
		}
	}
	// A train of the last packet alone is as long as that packet.
	*t = Train{Bufs: bufs, SegLen: min(whole, bytes), Count: count, Bytes: bytes}
	return true
}

// writeHeader writes the headers of the next segment, as the kernel does
// (inet_gso_segment, tcp_gso_segment, __udp_gso_segment): IPv4's ID counts up,
// FIN and PSH go to the last segment, CWR to the first.
func (s *Splitter) writeHeader(h, payload []byte, last bool) {
	copy(h, s.pkt)
	if !s.ip.v6 {
		putBE16(h, ipID, s.id+uint16(s.sent))
	}
	s.ip.setLength(h, len(h)+len(payload))

	l4, field := h[s.ip.len:], udpCsum
	n := len(l4) + len(payload)
	if s.tcp {
		field = tcpCsum
		putBE32(l4, tcpSeq, s.seq+uint32(s.sent*s.segSize))
		if !last {
			l4[tcpFlags] &^= tcpFIN | tcpPSH
		}
		if s.sent > 0 {
			l4[tcpFlags] &^= tcpCWR
		}
	} else {
		putBE16(l4, udpLength, uint16(n))
	}
	putBE16(l4, field, 0)
	sum := checksum.Finish(checksum.Add(checksum.Add(s.pseudo+uint64(n), l4), payload))
	if sum == 0 && !s.tcp {
		sum = 0xffff
	}
	putBE16(l4, field, sum)
	s.sent++
}
