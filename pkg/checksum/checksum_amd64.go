package checksum

import "golang.org/x/sys/cpu"

// vectorMin is the length in bytes from which the vector loop is faster despite
// its set-up and reduction. Headers are shorter.
const vectorMin = 320

var haveAVX2 = cpu.X86.HasAVX2

// addVector sums b, whose length is a multiple of 128, as little-endian words.
// The result is congruent to the 64-bit one's-complement sum modulo 2^16 - 1.
//
//go:noescape
func addVector(b []byte) uint64

func addLE(b []byte) uint64 {
	if len(b) < vectorMin || !haveAVX2 {
		return addGeneric(b)
	}
	n := len(b) &^ 127
	// Folded to 16 bits, the two sums cannot overflow.
	return uint64(Fold(addVector(b[:n]))) + uint64(Fold(addGeneric(b[n:])))
}
