package bpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Probe returns nil if this process can use the kernel path on this kernel, else
// the reason. It loads the programs without attaching them: that needs the
// capabilities, and the kernel verifies the programs and the helpers they call.
func Probe() error {
	p := newPath(Config{
		Device: 1, Port: 1, MaxPeers: 1,
		Local:  netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 0}), 8),
	})
	err := p.load()
	if err == nil {
		err = probeTCX(p.Encap)
	}
	if err := errors.Join(err, p.Close()); err != nil {
		return fmt.Errorf("probe kernel path: %w", err)
	}
	return nil
}

// probeTCX attaches to an interface that never exists. A kernel with tcx (Linux 6.6)
// returns ENODEV.
func probeTCX(program *ebpf.Program) error {
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: math.MaxInt32, Program: program, Attach: ebpf.AttachTCXEgress,
	})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return explain(err)
	}
	return l.Close()
}
