package offload

import (
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/tun/virtio"
)

// bulk is a TCP super-packet of 45 segments, and its wire packets.
func bulk(t testing.TB) (h virtio.NetHdr, pkt []byte, wire [][]byte) {
	m, _ := pair(false)
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
	h, pkt, _ := bulk(t)
	s := new(Splitter)
	if n := testing.AllocsPerRun(100, func() {
		if splitAll(s, &h, pkt) != 45 {
			t.Fatal("not split")
		}
	}); n != 0 {
		t.Errorf("%v allocations per super-packet", n)
	}
}

func TestMergeAllocatesNothing(t *testing.T) {
	_, _, wire := bulk(t)
	m := NewMerger(everything)
	head := slices.Clone(wire[0])
	if n := testing.AllocsPerRun(100, func() {
		copy(wire[0], head) // merging rewrites it
		if mergeAll(m, wire) != 1 {
			t.Fatal("not merged")
		}
	}); n != 0 {
		t.Errorf("%v allocations per super-packet", n)
	}
}

func BenchmarkSplit(b *testing.B) {
	h, pkt, _ := bulk(b)
	s := new(Splitter)
	b.SetBytes(int64(len(pkt)))
	b.ReportAllocs()
	for b.Loop() {
		splitAll(s, &h, pkt)
	}
}

func BenchmarkMerge(b *testing.B) {
	_, pkt, wire := bulk(b)
	m := NewMerger(MergeConfig{TCP: true})
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
