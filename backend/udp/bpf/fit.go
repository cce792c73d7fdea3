package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/pinned"
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
	frags, err := has(ebpf.XDP, asm.FnXdpGetBuffLen)
	if err != nil {
		return err
	}
	if frags = frags && !old; !frags {
		spec.Programs[flannelProgDecapXdp].Flags &^= unix.BPF_F_XDP_HAS_FRAGS
	}
	return spec.Variables[flannelVarFrags].Set(frags)
}

// UnwrapsMixed reports whether bpf_skb_adjust_room takes BPF_F_ADJ_ROOM_DECAP_L3_* (Linux
// 6.3). The flag names the family of the inner packet. UnwrapsMixed runs a program with a
// packet of IPv4.
func UnwrapsMixed() (bool, error) {
	const removed, mode, decapIPv6 = 28, 1, 1 << 8 // BPF_ADJ_ROOM_MAC, BPF_F_ADJ_ROOM_DECAP_L3_IPV6
	packet := make([]byte, 14+removed+64)
	packet[12], packet[13], packet[14] = 0x08, 0x00, 0x45 // Ethernet's type, IPv4's first byte
	code, err := pinned.Try(asm.Instructions{
		asm.Mov.Imm(asm.R2, -removed),
		asm.Mov.Imm(asm.R3, mode),
		asm.Mov.Imm(asm.R4, decapIPv6),
		asm.FnSkbAdjustRoom.Call(),
		asm.Return(),
	}, packet)
	if err != nil {
		return false, fmt.Errorf("look for unwrapping to another family: %w", explain(err))
	}
	return code == 0, nil
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
