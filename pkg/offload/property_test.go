package offload

import (
	"bytes"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// Merge(Split(x)) == x, for every super-packet of 2 segments or more.
func TestMergeOfSplitIsIdentity(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := templates(rt)
		segment := rapid.IntRange(1, 1500).Draw(rt, "segment")
		count := rapid.IntRange(2, maxMerge).Draw(rt, "segments")
		last := rapid.IntRange(1, segment).Draw(rt, "last")
		size := (count-1)*segment + last
		if size > maxPacket-maxHeaders {
			size = maxPacket - maxHeaders
		}
		m.payload = rapid.SliceOfN(rapid.Byte(), size, size).Draw(rt, "payload")
		if m.flags&tcpPSH != 0 && m.flags&tcpCWR != 0 {
			m.flags &^= tcpPSH
		}
		pkt, h := m.build(true), m.hdr(segment)

		packets, err := split(t, new(Splitter), h, slices.Clone(pkt))
		if err != nil {
			rt.Fatal(err)
		}
		for i, p := range packets {
			checkWire(rt, p, m.id+uint16(i))
		}
		out := merge(NewMerger(everything), packets)
		if len(out) != 1 {
			rt.Fatalf("%d packets merged to %d", len(packets), len(out))
		}
		var got virtio.NetHdr
		if err := got.Decode(out[0]); err != nil || got != h {
			rt.Fatalf("header %+v, want %+v", got, h)
		}
		if !bytes.Equal(out[0][virtio.HdrLen:], pkt) {
			rt.Fatal("merged packet differs from the one that was split")
		}
	})
}

// checkWire checks what a receiver of a packet would check.
func checkWire(rt *rapid.T, p []byte, id uint16) {
	h, total, ok := parseIP(p)
	if !ok || total != len(p) {
		rt.Fatalf("packet of %d bytes states %d, whole %v", len(p), total, ok)
	}
	l4 := p[h.len:]
	if !h.v6 && (be16(p, ipID) != id || !checksum.Valid(checksum.Add(0, p[:ipMinLen]))) {
		rt.Fatalf("ID %d, want %d, or a wrong checksum", be16(p, ipID), id)
	}
	if !checksum.Valid(checksum.Add(pseudo(p, len(l4)), l4)) {
		rt.Fatal("wrong checksum")
	}
	if h.proto == protoUDP && be16(l4, udpCsum) == 0 {
		rt.Fatal("UDP packet without a checksum")
	}
}

// Split(Merge(x)) == x, for every sequence of packets: runs of segments, with
// packets lost, swapped, repeated, damaged and strange in between.
func TestSplitOfMergeIsIdentity(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var packets [][]byte
		for range rapid.IntRange(1, 4).Draw(rt, "runs") {
			packets = append(packets, run(rt)...)
		}
		for range rapid.IntRange(0, 4).Draw(rt, "damages") {
			damage(rt, packets)
		}
		if rapid.Bool().Draw(rt, "swap") {
			i := rapid.IntRange(0, len(packets)-1).Draw(rt, "i")
			j := rapid.IntRange(0, len(packets)-1).Draw(rt, "j")
			packets[i], packets[j] = packets[j], packets[i]
		}
		got := remerge(t, packets)
		if !equal(blurID(got), blurID(packets)) {
			rt.Fatalf("%d packets came back as %d, or changed", len(packets), len(got))
		}
	})
}

// run draws a run of packets, most of which continue each other.
func run(rt *rapid.T) [][]byte {
	m := templates(rt)
	size := rapid.IntRange(1, 60).Draw(rt, "size")
	idStep := rapid.SampledFrom([]uint16{0, 1, 1, 2}).Draw(rt, "ID step")
	var out [][]byte
	for range rapid.IntRange(1, 70).Draw(rt, "packets") {
		switch rapid.IntRange(0, 40).Draw(rt, "change") {
		case 0:
			m.seq++
		case 1:
			m.ack++
		case 2:
			m.flags ^= tcpPSH
		case 3:
			m.flags ^= tcpCWR
		case 4:
			m.flags ^= 0x40 // ECE
		case 5:
			m.window++
		case 6:
			m.tos ^= 3
		case 7:
			m.ttl ^= 1
		case 8:
			m.df = !m.df
		case 9:
			size = rapid.IntRange(0, 60).Draw(rt, "size")
		case 10:
			m.flags ^= tcpFIN
		case 11:
			if len(m.options) > 0 {
				m.options = slices.Clone(m.options)
				m.options[0]++
			}
		case 12:
			m.flags ^= rapid.SampledFrom([]byte{tcpSYN, tcpRST, tcpURG, tcpACK}).Draw(rt, "flag")
		case 13:
			m.udp = !m.udp
		}
		m.payload = bytes.Repeat([]byte{byte(len(out))}, size)
		out = append(out, m.build(false))
		m.seq += uint32(size)
		m.id += idStep
	}
	return out
}

// damage changes a byte of a packet, or its length, and may make the checksums
// right again.
func damage(rt *rapid.T, packets [][]byte) {
	i := rapid.IntRange(0, len(packets)-1).Draw(rt, "packet")
	p := packets[i]
	if len(p) == 0 {
		return
	}
	switch at := rapid.IntRange(0, min(len(p)-1, 45)).Draw(rt, "at"); rapid.IntRange(0, 3).Draw(rt, "damage") {
	case 0:
		p[at] = rapid.Byte().Draw(rt, "byte")
	case 1:
		packets[i] = p[:at]
	case 2:
		packets[i] = append(p, 0)
	case 3:
		p[at] = rapid.Byte().Draw(rt, "byte")
		if len(p) >= ipMinLen+tcpMinLen {
			if p[0]>>4 != 6 {
				setIPv4Csum(p, ipMinLen)
			}
			fixCsum(p)
		}
	}
}
