package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// fit makes the programs use what the kernel has; old: what Linux 5.10 has. Errors
// name the release of Linux that brought what is missing.
func fit(spec *ebpf.CollectionSpec, old bool) error {
	routes, err := has(ebpf.SchedCLS, asm.FnRedirectNeigh)
	if err != nil {
		return err
	}
	if !routes {
		return fmt.Errorf("needs Linux 5.10 or newer for bpf_redirect_neigh: %w", ebpf.ErrNotSupported)
	}
	checkMTU, err := has(ebpf.SchedCLS, asm.FnCheckMtu)
	if err != nil {
		return err
	}
	frags, err := has(ebpf.XDP, asm.FnXdpGetBuffLen)
	if err != nil {
		return err
	}
	if old {
		checkMTU, frags = false, false
	}
	if !frags {
		spec.Programs[flannelProgDecapXdp].Flags &^= unix.BPF_F_XDP_HAS_FRAGS
	}
	return errors.Join(
		spec.Variables[flannelVarCheckMtu].Set(checkMTU),
		spec.Variables[flannelVarFrags].Set(frags),
	)
}

// has reports whether programs of a type may call a helper. Verified programs
// contain the calls to missing ones, but never reach them.
func has(kind ebpf.ProgramType, helper asm.BuiltinFunc) (bool, error) {
	err := features.HaveProgramHelper(kind, helper)
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for eBPF helper %v: %w", helper, explain(err))
	}
	return true, nil
}
