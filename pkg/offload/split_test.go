package offload

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// gsoUDP is a type of linux/virtio_net.h that the Splitter refuses: UFO.
const gsoUDP = 3

func TestSplitPassesWholePackets(t *testing.T) {
	a, _ := pair(false)
	pkt := a.build(false)
	padded := append(slices.Clone(pkt), 0, 0, 0)
	out, err := split(t, new(Splitter), virtio.NetHdr{}, padded)
	if err != nil || !equal(out, [][]byte{pkt}) {
		t.Fatalf("%d packets, %v; want the packet without its padding", len(out), err)
	}
}

func TestSplitCompletesChecksums(t *testing.T) {
	for _, m := range kinds() {
		h := m.hdr(0)
		h.GSOType = virtio.GSONone
		out, err := split(t, new(Splitter), h, m.build(true))
		if err != nil || !equal(out, [][]byte{m.build(false)}) {
			t.Errorf("IPv6 %v, UDP %v: %v, or a wrong checksum", m.v6, m.udp, err)
		}
	}
}

// A UDP checksum that comes out as 0 is sent as 0xffff, of a whole packet and
// of a segment.
func TestSplitNeverWritesAZeroUDPChecksum(t *testing.T) {
	m, _ := pair(true)
	m.payload = make([]byte, 8)
	pkt := m.build(false)
	putBE16(pkt, ipMinLen+udpLen, be16(pkt, ipMinLen+udpCsum)) // now the sum is 0xffff
	m.payload = pkt[ipMinLen+udpLen:]
	for _, segment := range []int{0, 8} {
		h := m.hdr(segment)
		if segment == 0 {
			h.GSOType = virtio.GSONone
		}
		out, err := split(t, new(Splitter), h, m.build(true))
		if err != nil || len(out) != 1 {
			t.Fatal(len(out), err)
		}
		if sum := be16(out[0], ipMinLen+udpCsum); sum != 0xffff {
			t.Errorf("segment %d: checksum %#04x, want 0xffff", segment, sum)
		}
	}
}

func TestSplitKeepsIPOptions(t *testing.T) {
	m, _ := pair(false)
	m.payload = bytes.Repeat([]byte("flannel "), 100)
	plain := m.build(true)
	pkt := slices.Concat(plain[:ipMinLen], []byte{1, 1, 1, 0}, plain[ipMinLen:])
	pkt[0] = 0x46
	putBE16(pkt, ipTotalLen, uint16(len(pkt)))
	h := m.hdr(300)
	h.CsumStart, h.HdrLen = 24, h.HdrLen+4
	out, err := split(t, new(Splitter), h, pkt)
	if err != nil || len(out) != 3 {
		t.Fatalf("%d packets, %v; want 3", len(out), err)
	}
	var payload []byte
	for _, p := range out {
		l4 := p[24:]
		if !checksum.Valid(checksum.Add(0, p[:24])) || !checksum.Valid(checksum.Add(pseudo(p, len(l4)), l4)) {
			t.Error("wrong checksum")
		}
		payload = append(payload, l4[tcpMinLen+len(m.options):]...)
	}
	if !bytes.Equal(payload, m.payload) {
		t.Error("payload changed")
	}
}

// Extension headers that hold options go to each segment.
func TestSplitKeepsExtensionHeaders(t *testing.T) {
	m, _ := pair(false)
	m.v6 = true
	m.payload = bytes.Repeat([]byte("flannel "), 100)
	plain := m.build(true)
	options := []byte{protoDstOpts, 0, 1, 4, 0, 0, 0, 0, protoTCP, 0, 1, 4, 0, 0, 0, 0} // padding
	pkt := slices.Concat(plain[:ip6Len], options, plain[ip6Len:])
	pkt[ip6Next] = protoHop
	putBE16(pkt, ip6PayloadLen, uint16(len(pkt)-ip6Len))
	h := m.hdr(300)
	h.CsumStart, h.HdrLen = h.CsumStart+uint16(len(options)), h.HdrLen+uint16(len(options))
	out, err := split(t, new(Splitter), h, pkt)
	if err != nil || len(out) != 3 {
		t.Fatalf("%d packets, %v; want 3", len(out), err)
	}
	var payload []byte
	for _, p := range out {
		header, total, ok := parseIP(p)
		if !ok || total != len(p) || !bytes.Equal(p[ip6Len:ip6Len+len(options)], options) {
			t.Fatalf("packet of %d bytes states %d, or lost its options", len(p), total)
		}
		l4 := p[header.len:]
		if !checksum.Valid(checksum.Add(header.pseudo(p)+uint64(len(l4)), l4)) {
			t.Error("wrong checksum")
		}
		payload = append(payload, l4[tcpMinLen+len(m.options):]...)
	}
	if !bytes.Equal(payload, m.payload) {
		t.Error("payload changed")
	}
}

func TestSplitOfHeadersAlone(t *testing.T) {
	m, _ := pair(false)
	m.payload = nil
	out, err := split(t, new(Splitter), m.hdr(100), m.build(true))
	if err != nil || !equal(out, [][]byte{m.build(false)}) {
		t.Errorf("%d packets, %v; want the one", len(out), err)
	}
}

func TestSplitFillsTrains(t *testing.T) {
	m, _ := pair(false)
	m.payload = make([]byte, 46*1400)
	h, pkt := m.hdr(1400), m.build(true)
	s := new(Splitter)
	if err := s.Reset(&h, pkt); err != nil {
		t.Fatal(err)
	}
	var train Train
	var counts []int
	for s.Next(&train) {
		cut(t, train)
		counts = append(counts, train.Count)
	}
	// 45 × 1452 bytes fit into a datagram's 65507, 46 do not.
	if !slices.Equal(counts, []int{45, 1}) {
		t.Errorf("trains of %v packets, want 45 and 1", counts)
	}
}

func TestSplitRefuses(t *testing.T) {
	m, _ := pair(false)
	u, _ := pair(true)
	v6 := m
	v6.v6 = true
	for name, c := range map[string]struct {
		m    template
		edit func(h *virtio.NetHdr, p []byte) []byte
		want error
	}{
		"no packet":      {m, func(_ *virtio.NetHdr, p []byte) []byte { return nil }, ErrNotIP},
		"IPv6":           {m, func(_ *virtio.NetHdr, p []byte) []byte { p[0] = 0x65; return p }, ErrNotIP},
		"short header":   {m, func(_ *virtio.NetHdr, p []byte) []byte { p[0] = 0x44; return p }, ErrNotIP},
		"long header":    {m, func(_ *virtio.NetHdr, p []byte) []byte { p[0] = 0x4f; return p[:40] }, ErrNotIP},
		"cut":            {m, func(_ *virtio.NetHdr, p []byte) []byte { return p[:len(p)-1] }, ErrNotIP},
		"IPv6 jumbogram": {v6, func(_ *virtio.NetHdr, p []byte) []byte { p[ip6Next] = protoHop; putBE16(p, ip6PayloadLen, 0); return p }, ErrNotIP},
		"IPv6 cut":       {v6, func(_ *virtio.NetHdr, p []byte) []byte { return p[:len(p)-1] }, ErrNotIP},
		"IPv6 header":    {v6, func(_ *virtio.NetHdr, p []byte) []byte { return p[:39] }, ErrNotIP},
		"IPv6 fragment":  {v6, func(_ *virtio.NetHdr, p []byte) []byte { p[ip6Next] = 44; return p }, ErrGSO},
		"long options": {v6, func(_ *virtio.NetHdr, p []byte) []byte {
			p[ip6Next], p[ip6Len], p[ip6Len+1] = protoDstOpts, protoTCP, 8
			return p
		}, ErrGSO},
		"cut options": {v6, func(_ *virtio.NetHdr, p []byte) []byte {
			p[ip6Next], p[ip6Len], p[ip6Len+1] = protoDstOpts, protoTCP, 255
			return p
		}, ErrGSO},
		"TCP over IPv4": {v6, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType = virtio.GSOTCPv4; return p }, ErrGSO},
		"no size":       {m, func(h *virtio.NetHdr, p []byte) []byte { h.GSOSize = 0; return p }, ErrGSO},
		"size":          {m, func(h *virtio.NetHdr, p []byte) []byte { h.GSOSize = 65500; return p }, ErrGSO},
		"type":          {m, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType = gsoUDP; return p }, ErrGSO},
		"TCP over IPv6": {m, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType = virtio.GSOTCPv6; return p }, ErrGSO},
		"UDP as TCP":    {u, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType = virtio.GSOTCPv4; return p }, ErrGSO},
		"TCP as UDP":    {m, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType = virtio.GSOUDPL4; return p }, ErrGSO},
		"UDP with ECN":  {u, func(h *virtio.NetHdr, p []byte) []byte { h.GSOType |= virtio.GSOECN; return p }, ErrGSO},
		"fragment":      {m, func(_ *virtio.NetHdr, p []byte) []byte { p[ipFrag] |= 0x20; return p }, ErrGSO},
		"TCP offset":    {m, func(_ *virtio.NetHdr, p []byte) []byte { p[ipMinLen+tcpOffset] = 4 << 4; return p }, ErrGSO},
		"TCP headers": {m, func(_ *virtio.NetHdr, p []byte) []byte {
			p = p[:ipMinLen+tcpMinLen]
			putBE16(p, ipTotalLen, uint16(len(p)))
			return p
		}, ErrGSO},
		"csum in the IP header": {m, func(h *virtio.NetHdr, p []byte) []byte {
			h.GSOType, h.CsumStart, h.CsumOffset = 0, 0, ipCsum
			return p
		}, ErrChecksumRange},
		"csum beyond the end": {m, func(h *virtio.NetHdr, p []byte) []byte {
			h.GSOType, h.CsumStart, h.CsumOffset = 0, uint16(len(p)-1), 0
			return p
		}, ErrChecksumRange},
		"csum offset": {m, func(h *virtio.NetHdr, p []byte) []byte {
			h.GSOType, h.CsumOffset = 0, 0xffff
			return p
		}, ErrChecksumRange},
	} {
		h := c.m.hdr(100)
		pkt := c.edit(&h, c.m.build(true))
		if _, err := split(t, new(Splitter), h, pkt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
