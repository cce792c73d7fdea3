#include "textflag.h"

// func addVector(b []byte) uint64
//
// On an AMD EPYC it sums a segment of 1448 bytes in 16 ns, the portable loop in
// 55 ns (BenchmarkAdd). A super-packet of 44 segments passes the whole offload
// data path in 21 µs, with the portable loop in 26 µs (BenchmarkOffload).
//
// Vectors have no add-with-carry. Instead, each 64-bit lane keeps two sums over
// its words x: of x, wrapping (Y0-Y3), and of x>>32, which cannot wrap below
// 16 GiB (Y4-Y7). Σ(x & 0xffffffff) = Σx - (Σ(x>>32) << 32) holds modulo 2^64.
// It holds exactly, as the true value is small.
TEXT ·addVector(SB), NOSPLIT, $0-32
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	VPXOR Y0, Y0, Y0
	VPXOR Y1, Y1, Y1
	VPXOR Y2, Y2, Y2
	VPXOR Y3, Y3, Y3
	VPXOR Y4, Y4, Y4
	VPXOR Y5, Y5, Y5
	VPXOR Y6, Y6, Y6
	VPXOR Y7, Y7, Y7
	SHRQ $7, CX
	JZ   reduce

loop:
	VMOVDQU 0(SI), Y8
	VMOVDQU 32(SI), Y9
	VMOVDQU 64(SI), Y10
	VMOVDQU 96(SI), Y11
	VPADDQ  Y8, Y0, Y0
	VPADDQ  Y9, Y1, Y1
	VPADDQ  Y10, Y2, Y2
	VPADDQ  Y11, Y3, Y3
	VPSRLQ  $32, Y8, Y8
	VPSRLQ  $32, Y9, Y9
	VPSRLQ  $32, Y10, Y10
	VPSRLQ  $32, Y11, Y11
	VPADDQ  Y8, Y4, Y4
	VPADDQ  Y9, Y5, Y5
	VPADDQ  Y10, Y6, Y6
	VPADDQ  Y11, Y7, Y7
	ADDQ    $128, SI
	DECQ    CX
	JNZ     loop

reduce:
	// Per lane: high = Y4, low = Y0 - (high << 32). A word adds less than 2^33
	// to high + low, so the sum over all lanes does not wrap.
	VPADDQ Y1, Y0, Y0
	VPADDQ Y3, Y2, Y2
	VPADDQ Y2, Y0, Y0
	VPADDQ Y5, Y4, Y4
	VPADDQ Y7, Y6, Y6
	VPADDQ Y6, Y4, Y4
	VPSLLQ $32, Y4, Y5
	VPSUBQ Y5, Y0, Y0
	VPADDQ Y4, Y0, Y0
	VEXTRACTI128 $1, Y0, X1
	VPADDQ X1, X0, X0
	VPSRLDQ $8, X0, X1
	VPADDQ X1, X0, X0
	VMOVQ  X0, AX
	VZEROUPPER
	MOVQ   AX, ret+24(FP)
	RET
