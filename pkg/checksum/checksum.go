// Package checksum computes the Internet checksum (RFC 1071) at memory speed.
//
// The one's-complement sum does not depend on the byte order except for a final
// swap (RFC 1071, section 2.B), nor on the word size except for a final fold
// (2.C). So this package adds wide little-endian words and swaps the 16-bit
// result once per call:
//
//   - amd64 with AVX2: 32 bytes per instruction, in assembly;
//   - other processors: 64-bit words in a chain of add-with-carry.
//
// A running sum is a uint64 of big-endian 16-bit words. Every call adds less
// than 2^17 to it, so a packet's pieces cannot overflow it. The usual order is a
// pseudo header, then Add for every piece, then Finish.
package checksum

import (
	"encoding/binary"
	"math/bits"
)

// Add returns sum plus the big-endian 16-bit words of b. An odd last byte
// counts as the high half of a word, so only the last of several pieces may have
// an odd length.
func Add(sum uint64, b []byte) uint64 {
	return sum + uint64(bits.ReverseBytes16(Fold(addLE(b))))
}

// Fold reduces a sum to 16 bits by adding its carries back in, without the
// complement. The kernel expects this form, over the pseudo header, in a packet
// whose checksum it completes (CHECKSUM_PARTIAL).
func Fold(sum uint64) uint16 {
	sum = sum>>32 + sum&0xffffffff // ≤ 2^33 - 2
	sum = sum>>16 + sum&0xffff     // ≤ 2^17 + 2^16
	sum = sum>>16 + sum&0xffff     // ≤ 2^16 + 1
	return uint16(sum>>16 + sum)
}

// Finish folds a sum and returns its complement, the value of the checksum
// field. For UDP the caller replaces 0 by 0xffff (RFC 768).
func Finish(sum uint64) uint16 { return ^Fold(sum) }

// Valid returns true if sum, over data and their checksum field, shows that the
// data are intact.
func Valid(sum uint64) bool { return Fold(sum) == 0xffff }

// Pseudo4 returns the sum of the pseudo header of TCP and UDP over IPv4 (RFC
// 9293, section 3.1). src and dst are addresses as big-endian numbers. length is
// that of the transport header and its payload, in bytes.
func Pseudo4(src, dst uint32, protocol uint8, length uint16) uint64 {
	return uint64(src>>16) + uint64(src&0xffff) + uint64(dst>>16) + uint64(dst&0xffff) +
		uint64(protocol) + uint64(length)
}

// addGeneric returns the one's-complement sum of b's little-endian 64-bit
// words, the last one padded with zeros.
func addGeneric(b []byte) uint64 {
	var sum, carry uint64
	for len(b) >= 64 {
		// One chain: the compiler keeps the carry in the flags register.
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[0:8]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[8:16]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[16:24]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[24:32]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[32:40]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[40:48]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[48:56]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b[56:64]), carry)
		b = b[64:]
	}
	for len(b) >= 8 {
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	var tail uint64
	shift := 0
	if len(b) >= 4 {
		tail, shift = uint64(binary.LittleEndian.Uint32(b)), 32
		b = b[4:]
	}
	for i, v := range b { // up to three bytes
		tail |= uint64(v) << (shift + 8*i)
	}
	sum, carry = bits.Add64(sum, tail, carry)
	// This cannot carry again: the tail is below 2^56, so a sum that wrapped is
	// small.
	return sum + carry
}
