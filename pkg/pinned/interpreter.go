package pinned

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// Compile is the command that ends [Interpreted].
const Compile = "sysctl -w net.core.bpf_jit_enable=1"

// Interpreted reports whether the kernel interprets programs rather than compiles them,
// which costs several times the work. It does so with net.core.bpf_jit_enable=0, or without
// CONFIG_BPF_JIT. Interpreted needs CAP_BPF.
//
// The parameter itself is not visible in each network namespace (net_core_table,
// net/core/sysctl_net_core.c).
func Interpreted() (bool, error) {
	p, err := load(asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()})
	if err != nil {
		return false, fmt.Errorf("look for the compiler of programs: %w", err)
	}
	defer p.Close()
	return interpreted(p)
}

// interpreted reports whether a program has no machine code (jited_prog_len,
// bpf_prog_get_info_by_fd in kernel/bpf/syscall.c).
func interpreted(p *ebpf.Program) (bool, error) {
	info, err := p.Info()
	if err != nil {
		return false, fmt.Errorf("look for the compiler of programs: %w", err)
	}
	_, err = info.JitedSize()
	return errors.Is(err, ebpf.ErrNotSupported), nil
}
