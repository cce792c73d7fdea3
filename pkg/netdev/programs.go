package netdev

import (
	"errors"
	"fmt"
	"math"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// queryTries bounds the repetitions of a query while other programs come.
const queryTries = 10

// Programs returns the programs of tcx at an interface, in the order in which they
// run. at is ebpf.AttachTCXIngress or ebpf.AttachTCXEgress. The error is the kernel's,
// such as ENODEV.
func Programs(index int, at ebpf.AttachType) (programs []link.AttachedProgram, err error) {
	for range queryTries {
		var r *link.QueryResult
		if r, err = link.QueryPrograms(link.QueryOptions{Target: index, Attach: at}); err == nil {
			return r.Programs, nil
		}
		// The library requests the number of programs, then the programs. One that
		// comes in between does not fit.
		if !errors.Is(err, unix.ENOSPC) {
			break
		}
	}
	return nil, fmt.Errorf("query programs of interface %d: %w", index, err)
}

// ProbeTCX attaches a program to an interface that never exists. A kernel with tcx
// (Linux 6.6) returns ENODEV, for which the error is nil.
func ProbeTCX(program *ebpf.Program) error {
	l, err := link.AttachTCX(link.TCXOptions{Interface: math.MaxInt32, Program: program, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.Close()
}
