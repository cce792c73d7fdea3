package fastpath

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/pinned"
)

// skipNeighbour is BPF_FIB_LOOKUP_SKIP_NEIGH of include/uapi/linux/bpf.h (Linux 6.3; stable
// releases of 6.1 have it, too). The look-up of a route succeeds without a neighbour then.
const skipNeighbour = 1 << 3

// knowsLookUp reports whether bpf_fib_lookup knows a flag. It runs a program that asks
// about the interface 0: the kernel checks the flags first (EINVAL), then the interface
// (ENODEV; bpf_skb_fib_lookup in net/core/filter.c).
func knowsLookUp(flag uint32) (bool, error) {
	const size = 64 // of struct bpf_fib_lookup
	var program asm.Instructions
	program = append(program, asm.Mov.Imm(asm.R2, 0))
	for at := int16(-size); at < 0; at += 8 {
		program = append(program, asm.StoreMem(asm.R10, at, asm.R2, asm.DWord))
	}
	program = append(program,
		asm.StoreImm(asm.R10, -size, unix.AF_INET, asm.Byte),
		asm.Mov.Reg(asm.R2, asm.R10),
		asm.Add.Imm(asm.R2, -size),
		asm.Mov.Imm(asm.R3, size),
		asm.LoadImm(asm.R4, int64(flag), asm.DWord),
		asm.FnFibLookup.Call(),
		asm.Return(),
	)
	code, err := pinned.Try(program, make([]byte, 64))
	if err != nil {
		return false, fmt.Errorf("look for flag %#x of route look-ups: %w", flag, err)
	}
	return code != -int32(unix.EINVAL), nil
}
