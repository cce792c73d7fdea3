package offload

import (
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

// bulk is a TCP super-packet of 45 segments, and its wire packets.
func bulk(t testing.TB, v6 bool) (h virtio.NetHdr, pkt []byte, wire [][]byte) {
	m, _ := pair(false)
	m.v6 = v6
	m.payload = make([]byte, 45*1400)
	h, pkt = m.hdr(1400), m.build(true)
	wire, err := split(t, new(Splitter), h, slices.Clone(pkt))
	if err != nil {
		t.Fatal(err)
	}
	return h, pkt, wire
}

func splitAll(s *Splitter, h *virtio.NetHdr, pkt []byte) (packets int) {
	var train Train
	if s.Reset(h, pkt) != nil {
		return 0
	}
	for s.Next(&train) {
		packets += train.Count
	}
	return packets
}

func mergeAll(m *Merger, wire [][]byte) (results int) {
	for _, p := range wire {
		if m.Add(p) != nil {
			results++
		}
	}
	if m.Flush() != nil {
		results++
	}
	return results
}

func TestSplitAllocatesNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		h, pkt, _ := bulk(t, v6)
		s := new(Splitter)
		if n := testing.AllocsPerRun(100, func() {
			if splitAll(s, &h, pkt) != 45 {
				t.Fatal("not split")
			}
		}); n != 0 {
			t.Errorf("IPv6 %v: %v allocations per super-packet", v6, n)
		}
	}
}

func TestMergeAllocatesNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		_, _, wire := bulk(t, v6)
		m := NewMerger(everything)
		head := slices.Clone(wire[0])
		if n := testing.AllocsPerRun(100, func() {
			copy(wire[0], head) // merging rewrites it
			if mergeAll(m, wire) != 1 {
				t.Fatal("not merged")
			}
		}); n != 0 {
			t.Errorf("IPv6 %v: %v allocations per super-packet", v6, n)
		}
	}
}

// forFamilies runs a benchmark with packets of each family.
func forFamilies(b *testing.B, f func(b *testing.B, v6 bool)) {
	b.Run("IPv4", func(b *testing.B) { f(b, false) })
	b.Run("IPv6", func(b *testing.B) { f(b, true) })
}

func BenchmarkSplit(b *testing.B) { forFamilies(b, benchmarkSplit) }

func benchmarkSplit(b *testing.B, v6 bool) {
	h, pkt, _ := bulk(b, v6)
	s := new(Splitter)
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for b.Loop() {
		splitAll(s, &h, pkt)
	}
}

func BenchmarkMerge(b *testing.B) { forFamilies(b, benchmarkMerge) }

func benchmarkMerge(b *testing.B, v6 bool) {
	_, pkt, wire := bulk(b, v6)
	m := NewMerger(everything)
	head := slices.Clone(wire[0])
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for b.Loop() {
		copy(wire[0], head)
		mergeAll(m, wire)
	}
}

// BenchmarkMergeSmall is the price of looking at a packet that stays alone.
func BenchmarkMergeSmall(b *testing.B) {
	a, _ := pair(false)
	a.payload = nil
	pkt := a.build(false)
	m := NewMerger(MergeConfig{TCP: true})
	b.ReportAllocs()
	for b.Loop() {
		m.Add(pkt)
	}
}
