package fastpath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf/btf"
)

// whyNotSupported names what the kernel lacks if it does not know the functions that the
// programs call. It may lack connection tracking; modules is the failure to load that. It
// may lack types, by which programs find functions, or the functions themselves.
func whyNotSupported(modules error) error {
	const what = "the kernel lacks what the fast path needs"
	if modules != nil {
		return fmt.Errorf("%s: connection tracking; load it with \"modprobe -a nf_conntrack nf_conntrack_netlink\": %w", what, modules)
	}
	if _, err := btf.LoadKernelSpec(); err != nil {
		return fmt.Errorf("%s: a description of its types (CONFIG_DEBUG_INFO_BTF, /sys/kernel/btf/vmlinux)", what)
	}
	return errors.New(what + ": functions of connection tracking for programs, which need Linux 6.0 or newer")
}
