package checksum

import (
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"
)

// naive is RFC 1071's definition, word by word.
func naive(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		sum += w
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// check compares every implementation with the naive one. 0 and 0xffff are both zero
// in one's complement, but differ on the wire. The naive sum is 0 only for all-zero
// data, and so must be the others.
func check(t *testing.T, b []byte) {
	t.Helper()
	want := naive(b)
	if got := Fold(Add(0, b)); got != want {
		t.Fatalf("Add of %d bytes = %#04x, want %#04x", len(b), got, want)
	}
	generic := Fold(addGeneric(b))
	if got := generic>>8 | generic<<8; got != want {
		t.Fatalf("addGeneric of %d bytes = %#04x, want %#04x", len(b), got, want)
	}
}

func TestAddEqualsNaiveAtEveryLengthAndOffset(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	buf := make([]byte, 2048+32)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	for n := 0; n <= 2048; n++ {
		for _, offset := range []int{0, 1, 2, 3, 7, 8, 31} {
			check(t, buf[offset:offset+n])
		}
	}
}

func TestAddOfExtremes(t *testing.T) {
	for _, n := range []int{0, 1, 2, 19, 64, 127, 128, 256, 257, 1448, 65535, 65536, 1 << 20} {
		b := make([]byte, n)
		check(t, b)
		for i := range b {
			b[i] = 0xff // every addition carries
		}
		check(t, b)
		if n > 0 {
			b[n-1] = 0xfe
			check(t, b)
		}
	}
}

func TestAddInPieces(t *testing.T) {
	b := make([]byte, 4000)
	for i := range b {
		b[i] = byte(i * 7)
	}
	want := Fold(Add(0, b))
	for cut := 0; cut <= len(b); cut += 2 {
		if got := Fold(Add(Add(0, b[:cut]), b[cut:])); got != want {
			t.Fatalf("cut at %d: %#04x, want %#04x", cut, got, want)
		}
	}
}

func TestPseudoHeader(t *testing.T) {
	b := make([]byte, 12)
	copy(b, []byte{10, 5, 200, 1, 192, 168, 255, 254, 0, 6, 0xff, 0xe1})
	got := Fold(Pseudo4(binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), 6, 0xffe1))
	if want := naive(b); got != want {
		t.Errorf("Pseudo4 = %#04x, want %#04x", got, want)
	}
}

// The example of RFC 1071, section 3.
func TestKnownSum(t *testing.T) {
	sum := Add(0, []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})
	if Fold(sum) != 0xddf2 || Finish(sum) != 0x220d {
		t.Fatalf("sum %#04x, checksum %#04x; want 0xddf2, 0x220d", Fold(sum), Finish(sum))
	}
	if !Valid(Add(sum, []byte{0x22, 0x0d})) || Valid(Add(sum, []byte{0x22, 0x0e})) {
		t.Fatal("Valid does not tell a right checksum from a wrong one")
	}
}

func FuzzAdd(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Add(make([]byte, 1500))
	f.Fuzz(func(t *testing.T, b []byte) {
		check(t, b)
		if len(b) > 0 {
			check(t, b[1:])
		}
		// The vector loop needs more bytes than a fuzzer usually generates.
		long := make([]byte, 0, 1024+len(b))
		for len(b) > 0 && len(long) < 1024 {
			long = append(long, b...)
		}
		check(t, long)
	})
}

func TestAddAllocatesNothing(t *testing.T) {
	b := make([]byte, 65536)
	var sink uint64
	if n := testing.AllocsPerRun(100, func() { sink = Add(sink&0xffff, b) }); n != 0 {
		t.Errorf("Add allocates %v times", n)
	}
}

func BenchmarkAdd(b *testing.B) {
	for _, impl := range []struct {
		name string
		add  func([]byte) uint64
	}{{"best", addLE}, {"generic", addGeneric}} {
		for _, n := range []int{20, 52, 128, 192, 256, 384, 1448, 65536} {
			b.Run(impl.name+"/"+strconv.Itoa(n), func(b *testing.B) {
				buf := make([]byte, n)
				b.SetBytes(int64(n))
				b.ReportAllocs()
				var sink uint64
				for b.Loop() {
					sink += impl.add(buf)
				}
			})
		}
	}
}
