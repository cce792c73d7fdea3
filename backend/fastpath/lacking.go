package fastpath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

const lacks = "the kernel lacks what the fast path needs"

// errLookUp is the reason for a kernel without [skipNeighbour].
var errLookUp = errors.New(lacks + ": look-ups of routes without neighbours (BPF_FIB_LOOKUP_SKIP_NEIGH), which need Linux 6.3 or newer")

// whyNotSupported names what the kernel lacks if it does not know the functions that the
// programs call. It may lack connection tracking; modules is the failure to load that. It
// may lack types, by which programs find functions, or the functions themselves.
func whyNotSupported(modules error) error {
	if modules != nil {
		return fmt.Errorf("%s: connection tracking; load it with \"modprobe -a nf_conntrack nf_conntrack_netlink\": %w", lacks, modules)
	}
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("%s: a description of its types (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux)", lacks)
	}
	return errors.New(lacks + ": functions of connection tracking for programs, which need Linux 6.0 or newer")
}
