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

// Probe says why this process cannot use the kernel path here; nil if it can.
// It loads the programs, which takes the capabilities and makes the kernel
// check that it has all that they call, and attaches them to nothing.
func Probe() error {
	p := newPath(Config{
		Device: 1, Port: 1, MaxPeers: 1,
		Local:  netip.AddrFrom4([4]byte{127, 0, 0, 1}),
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{127, 0, 0, 0}), 8),
	})
	err := p.load()
	if err == nil {
		err = probeTCX(p.Out)
	}
	if err := errors.Join(err, p.Close()); err != nil {
		return fmt.Errorf("probe kernel path: %w", err)
	}
	return nil
}

// probeTCX asks for an interface that is never there: a kernel that has tcx
// (Linux 6.6) says so.
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
