package pinned

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
)

// Try loads a program of tc and runs it once over a frame, for what only a call to the
// kernel tells (BPF_PROG_TEST_RUN, bpf_prog_test_run_skb in net/bpf/test_run.c). It returns
// the program's result. The kernel refuses frames of less than 14 bytes (EINVAL).
func Try(program asm.Instructions, frame []byte) (int32, error) {
	p, err := load(program)
	if err != nil {
		return 0, err
	}
	defer p.Close()
	code, err := p.Run(&ebpf.RunOptions{Data: frame, Repeat: 1})
	if err != nil {
		return 0, fmt.Errorf("run program: %w", err)
	}
	return int32(code), nil
}

// load loads a program of tc. The caller closes it.
func load(program asm.Instructions) (*ebpf.Program, error) {
	_ = rlimit.RemoveMemlock() // before Linux 5.11 a program counts against it
	return ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: program})
}
