package offload

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// everything is what a TUN with all offloads takes.
var everything = MergeConfig{TCP: true, TCPv6: true, UDP: true}

// template is the shape of an IP packet with TCP or UDP in it.
type template struct {
	v6, udp  bool
	tos, ttl byte
	id       uint16
	df       bool
	seq, ack uint32
	window   uint16
	flags    byte
	options  []byte // TCP, a multiple of 4 bytes
	payload  []byte
}

// build makes the packet with right lengths and checksums. With partial, the
// transport checksum is left to be completed.
func (m template) build(partial bool) []byte {
	headerLen, proto := m.ipLen()+udpLen, byte(protoUDP)
	if !m.udp {
		headerLen, proto = m.ipLen()+tcpMinLen+len(m.options), protoTCP
	}
	b := make([]byte, headerLen, headerLen+len(m.payload))
	b = append(b, m.payload...)
	if m.v6 {
		m.buildIPv6(b, proto)
	} else {
		m.buildIPv4(b, proto)
	}
	l4 := b[m.ipLen():]
	copy(l4, []byte{0x12, 0x34, 0x56, 0x78}) // ports
	field := udpCsum
	if m.udp {
		putBE16(l4, udpLength, uint16(len(l4)))
	} else {
		putBE32(l4, tcpSeq, m.seq)
		putBE32(l4, tcpAck, m.ack)
		l4[tcpOffset] = byte(tcpMinLen+len(m.options)) / 4 << 4
		l4[tcpFlags] = m.flags
		putBE16(l4, tcpWindow, m.window)
		copy(l4[tcpMinLen:], m.options)
		field = tcpCsum
	}
	if partial {
		putBE16(l4, field, checksum.Fold(pseudo(b, len(l4))))
	} else {
		fixCsum(b)
	}
	return b
}

// ipLen is the length of the IP header.
func (m template) ipLen() int {
	if m.v6 {
		return ip6Len
	}
	return ipMinLen
}

func (m template) buildIPv4(b []byte, proto byte) {
	b[0], b[1], b[8], b[ipProto] = 0x45, m.tos, m.ttl, proto
	putBE16(b, ipTotalLen, uint16(len(b)))
	putBE16(b, ipID, m.id)
	if m.df {
		putBE16(b, ipFrag, ipDontFragment)
	}
	copy(b[ipSrc:], []byte{10, 5, 72, 2, 10, 5, 9, 3})
	setIPv4Csum(b, ipMinLen)
}

func (m template) buildIPv6(b []byte, proto byte) {
	putBE32(b, 0, 6<<28|uint32(m.tos)<<20|uint32(m.ack)&0xfffff) // any flow label
	putBE16(b, ip6PayloadLen, uint16(len(b)-ip6Len))
	b[ip6Next], b[7] = proto, m.ttl
	for i := range b[ip6Src:ip6Len] {
		b[ip6Src+i] = byte(0xf0 + i)
	}
}

// headerOf returns the IP header of a packet without options, also of a broken one.
func headerOf(b []byte) ip {
	if len(b) >= ip6Len && b[0]>>4 == 6 {
		return ip{v6: true, len: ip6Len, proto: b[ip6Next]}
	}
	return ip{len: ipMinLen, proto: b[ipProto]}
}

// pseudo returns the sum of b's pseudo header; n is the length of its transport
// header and payload.
func pseudo(b []byte, n int) uint64 { return headerOf(b).pseudo(b) + uint64(n) }

// setIPv4Csum writes the checksum of the IPv4 header in the first n bytes of b.
func setIPv4Csum(b []byte, n int) {
	putBE16(b, ipCsum, 0)
	putBE16(b, ipCsum, checksum.Finish(checksum.Add(0, b[:n])))
}

// fixCsum writes the transport checksum of a whole packet without IP options.
func fixCsum(b []byte) {
	h := headerOf(b)
	l4, field := b[h.len:], udpCsum
	if h.proto == protoTCP {
		field = tcpCsum
	}
	if len(l4) < field+2 {
		return
	}
	putBE16(l4, field, 0)
	sum := checksum.Finish(checksum.Add(pseudo(b, len(l4)), l4))
	if sum == 0 && field == udpCsum {
		sum = 0xffff
	}
	putBE16(l4, field, sum)
}

// hdr is the vnet header that a kernel sends with the super-packet.
func (m template) hdr(segment int) virtio.NetHdr {
	h := virtio.NetHdr{Flags: virtio.FlagNeedsCsum, CsumStart: uint16(m.ipLen()), GSOSize: uint16(segment)}
	if m.udp {
		h.GSOType, h.HdrLen, h.CsumOffset = virtio.GSOUDPL4, uint16(m.ipLen()+udpLen), udpCsum
		return h
	}
	h.GSOType, h.HdrLen, h.CsumOffset = virtio.GSOTCPv4, uint16(m.ipLen()+tcpMinLen+len(m.options)), tcpCsum
	if m.v6 {
		h.GSOType = virtio.GSOTCPv6
	}
	if m.flags&tcpCWR != 0 {
		h.GSOType |= virtio.GSOECN
	}
	return h
}

// templates draws packets that a kernel could send, without their payload.
func templates(t *rapid.T) template {
	return template{
		v6:      rapid.Bool().Draw(t, "IPv6"),
		udp:     rapid.Bool().Draw(t, "udp"),
		tos:     rapid.Byte().Draw(t, "tos"),
		ttl:     rapid.ByteMin(1).Draw(t, "ttl"),
		id:      rapid.Uint16().Draw(t, "id"),
		df:      rapid.Bool().Draw(t, "df"),
		seq:     rapid.Uint32().Draw(t, "seq"),
		ack:     rapid.Uint32().Draw(t, "ack"),
		window:  rapid.Uint16().Draw(t, "window"),
		flags:   tcpACK | rapid.SampledFrom([]byte{0, tcpPSH, tcpFIN, tcpPSH | tcpFIN, tcpCWR, 0x40}).Draw(t, "flags"),
		options: make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "option words")),
	}
}

// split returns the wire packets of a TUN packet, one slice each.
func split(t testing.TB, s *Splitter, h virtio.NetHdr, pkt []byte) ([][]byte, error) {
	t.Helper()
	if err := s.Reset(&h, pkt); err != nil {
		var train Train
		if s.Next(&train) {
			t.Fatal("a train after an error")
		}
		return nil, err
	}
	var out [][]byte
	var train Train
	for s.Next(&train) {
		out = append(out, cut(t, train)...)
	}
	return out, nil
}

// cut cuts a train where UDP_SEGMENT would, after checking its promises.
func cut(t testing.TB, train Train) [][]byte {
	t.Helper()
	all := bytes.Join(train.Bufs, nil)
	if len(all) != train.Bytes || train.Count > maxSegments || len(train.Bufs) > 2*maxSegments || train.SegLen < 1 ||
		train.Count == 1 && train.SegLen != train.Bytes || train.Count > 1 && train.Bytes > maxDatagram || (train.Bytes+train.SegLen-1)/train.SegLen != train.Count {
		t.Fatalf("train of %d × %d bytes, total %d, has %d bytes in %d buffers",
			train.Count, train.SegLen, train.Bytes, len(all), len(train.Bufs))
	}
	packets := slices.Collect(slices.Chunk(all, train.SegLen))
	at, next := 0, 0
	for _, b := range train.Bufs {
		if len(b) == 0 {
			t.Fatal("empty buffer in a train")
		}
		if at == next {
			next += train.SegLen
		}
		if at += len(b); at > next {
			t.Fatal("a buffer reaches into the next packet")
		}
	}
	return packets
}

// merge feeds packets to a Merger and returns what it wrote, one slice each,
// vnet headers in front. The packets are copied first.
func merge(m *Merger, packets [][]byte) [][]byte {
	var out [][]byte
	take := func(bufs [][]byte) {
		if bufs != nil {
			out = append(out, bytes.Join(bufs, nil))
		}
	}
	for _, p := range packets {
		take(m.Add(slices.Clone(p)))
	}
	take(m.Flush())
	return out
}

// remerge merges packets and splits the results again.
func remerge(t testing.TB, packets [][]byte) [][]byte {
	t.Helper()
	var out [][]byte
	splitter := new(Splitter)
	for _, w := range merge(NewMerger(everything), packets) {
		var h virtio.NetHdr
		if err := h.Decode(w); err != nil {
			t.Fatal(err)
		}
		pkt := w[virtio.HdrLen:]
		if h.GSOType == virtio.GSONone {
			if h != (virtio.NetHdr{}) {
				t.Fatalf("header %+v of a single packet", h)
			}
			out = append(out, pkt)
			continue
		}
		again, err := split(t, splitter, h, pkt)
		if err != nil {
			t.Fatalf("split of a merged packet: %v", err)
		}
		out = append(out, again...)
	}
	return out
}

// blurID makes packets with and without a counting IP ID alike, where the
// field has no meaning.
func blurID(packets [][]byte) [][]byte {
	out := make([][]byte, len(packets))
	for i, p := range packets {
		p = slices.Clone(p)
		if len(p) >= ipMinLen && p[0]>>4 != 6 && be16(p, ipFrag)&ipDontFragment != 0 {
			sum := uint64(be16(p, ipCsum)) + uint64(be16(p, ipID))
			binary.BigEndian.PutUint16(p[ipCsum:], checksum.Fold(sum))
			putBE16(p, ipID, 0)
		}
		out[i] = p
	}
	return out
}

func equal(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }
