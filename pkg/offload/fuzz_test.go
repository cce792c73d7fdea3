package offload

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

// FuzzSplit feeds any bytes as a TUN's read. Nothing may panic, and what comes
// out must be consistent trains.
func FuzzSplit(f *testing.F) {
	for _, m := range kinds() {
		for _, segment := range []int{1, 100, 512, 65535} {
			h := m.hdr(segment)
			var b [virtio.HdrLen]byte
			h.Encode(&b)
			f.Add(append(b[:], m.build(true)...))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var h virtio.NetHdr
		if h.Decode(b) != nil {
			return
		}
		pkt := b[virtio.HdrLen:]
		packets, err := split(t, new(Splitter), h, slices.Clone(pkt))
		if err != nil {
			return
		}
		for _, p := range packets {
			if _, total, ok := parseIP(p); !ok || total != len(p) {
				t.Fatalf("a packet of %d bytes states %d", len(p), total)
			}
		}
	})
}

// FuzzMerge feeds any sequence of packets, and demands each of them back. A
// packet is told by two bytes of length in front; a length with its highest bit
// set asks for right checksums, which a fuzzer does not find by itself.
func FuzzMerge(f *testing.F) {
	for _, a := range kinds() {
		b := second(a)
		var seed []byte
		for _, p := range [][]byte{a.build(false), b.build(false), b.build(false)} {
			seed = binary.BigEndian.AppendUint16(seed, uint16(len(p))|0x8000)
			seed = append(seed, p...)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var packets [][]byte
		for len(b) >= 2 {
			word := binary.BigEndian.Uint16(b)
			n := min(int(word&0x7fff), len(b)-2)
			p := slices.Clone(b[2 : 2+n])
			if word&0x8000 != 0 && n >= ipMinLen+tcpMinLen {
				if p[0]>>4 != 6 {
					setIPv4Csum(p, ipMinLen)
				}
				fixCsum(p)
			}
			packets = append(packets, p)
			b = b[2+n:]
		}
		if got := remerge(t, packets); !equal(blurID(got), blurID(packets)) {
			t.Fatalf("%d packets came back as %d, or changed", len(packets), len(got))
		}
	})
}
