package tchook

import (
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
)

// Link is a link of tcx (Linux 6.6 and newer) or XDP.
type Link struct{ link.Link }

// PinnedLink returns the link that is pinned at path; nil if there is none.
func PinnedLink(path string) (Hook, error) {
	l, err := pinned.Link(path)
	if l == nil || err != nil {
		return nil, err
	}
	return Link{l}, nil
}

// Runs implements [Hook].
func (l Link) Runs(index int, program ebpf.ProgramID) (bool, error) {
	runs, at, err := pinned.Attachment(l)
	return err == nil && runs == program && at == index, err
}

// Replace implements [Hook].
func (l Link) Replace(program *ebpf.Program) error { return l.Update(program) }

// End implements [Hook].
func (l Link) End() error { return pinned.End(l) }

// Misplaced implements [Hook]. XDP has one program.
func (l Link) Misplaced(index int) (why, err error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	if xdp := info.XDP(); xdp != nil {
		if int(xdp.Ifindex) != index {
			return ErrDetached, nil
		}
		return nil, nil
	}
	tcx := info.TCX()
	if tcx == nil {
		return nil, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
	}
	if int(tcx.Ifindex) != index {
		return ErrDetached, nil
	}
	chain, err := netdev.Programs(int(tcx.Ifindex), ebpf.AttachType(tcx.AttachType))
	if err != nil {
		return nil, err
	}
	var before []ebpf.ProgramID
	for _, other := range chain {
		if other.ID == info.Program {
			break
		}
		before = append(before, other.ID)
	}
	if len(before) > 0 { // promise: our-programs-are-first
		return &AfterError{before}, nil
	}
	return nil, nil
}

// Behind implements [Hook].
func (l Link) Behind() (names []string, err error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	tcx := info.TCX()
	if tcx == nil {
		return nil, nil
	}
	chain, err := netdev.Programs(int(tcx.Ifindex), ebpf.AttachType(tcx.AttachType))
	if err != nil {
		return nil, err
	}
	for _, other := range chain {
		if other.ID != info.Program {
			names = append(names, nameOf(other.ID))
		}
	}
	return names, nil
}
