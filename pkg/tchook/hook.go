// Package tchook attaches eBPF programs to interfaces, by links of tcx or XDP or by
// filters of tc.
package tchook

import (
	"errors"
	"fmt"
	"io"

	"github.com/cilium/ebpf"
)

// Hook is a program at an interface. It stays after Close if it is pinned, and ends
// otherwise.
type Hook interface {
	// Runs reports whether the hook is attached to the interface and runs a program.
	Runs(index int, program ebpf.ProgramID) (bool, error)
	// Replace makes the hook run another program from the next packet on.
	Replace(*ebpf.Program) error
	// Misplaced returns what is wrong with the hook, or nil: it is not attached to
	// the interface ([ErrDetached]), or runs after another program. By a link of tcx,
	// that is an [*AfterError]; filters of flannel may come first.
	Misplaced(index int) (why, err error)
	// Behind describes the programs that run after the hook's.
	Behind() ([]string, error)
	// Pin keeps the hook after Close, by an entry of a bpffs.
	Pin(path string) error
	// End detaches the program, removes the pin, and closes the hook.
	End() error
	io.Closer
}

// ErrDetached is the reason of a hook without an interface: a person detached it, or
// the interface was deleted.
var ErrDetached = errors.New("is detached")

// AfterError is the reason of a hook that runs after other programs.
type AfterError struct {
	Programs []ebpf.ProgramID // in their order
}

// Error names the first program.
func (e *AfterError) Error() string { return "runs after " + nameOf(e.Programs[0]) }

// nameOf returns a program's name and number. The name needs CAP_SYS_ADMIN.
func nameOf(id ebpf.ProgramID) string {
	name := fmt.Sprintf("program %d", id)
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return name
	}
	defer p.Close()
	if info, err := p.Info(); err == nil {
		name += " (" + info.Name + ")"
	}
	return name
}
