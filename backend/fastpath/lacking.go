package fastpath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"

	"github.com/coreos/flannel/pkg/pinned"
)

const lacks = "the kernel lacks what the fast path needs"

// errLookUp is the reason for a kernel without [skipNeighbour].
var errLookUp = errors.New(lacks + ": look-ups of routes without neighbours (BPF_FIB_LOOKUP_SKIP_NEIGH), which need Linux 6.3 or newer")

// errInterpreted is the reason for a kernel that does not compile programs: those cannot
// call its functions (add_kfunc_call, kernel/bpf/verifier.c).
var errInterpreted = errors.New(lacks + ": a compiler for programs; turn it on with \"" + pinned.Compile + "\"")

// errFunctions is the reason for a kernel without functions of connection tracking
// (net/netfilter/nf_conntrack_bpf.c, which its Makefile leaves out without types).
var errFunctions = errors.New(lacks + ": functions of connection tracking for programs, which need Linux 6.0 or newer, and CONFIG_DEBUG_INFO_BTF_MODULES if nf_conntrack is a module")

// whyNotSupported names what the kernel lacks if it does not know the functions that the
// programs call. It may lack connection tracking; modules is the failure to load that. It
// may lack types, by which programs find functions, the compiler, or the functions
// themselves.
func whyNotSupported(modules error, interpreted func() (bool, error)) error {
	if modules != nil {
		return fmt.Errorf("%s: connection tracking; load it with \"modprobe -a nf_conntrack nf_conntrack_netlink\": %w", lacks, modules)
	}
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("%s: a description of its types (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux)", lacks)
	}
	if slow, err := interpreted(); slow && err == nil {
		return errInterpreted
	}
	return errFunctions
}
