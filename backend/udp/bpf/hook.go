package bpf

import (
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/pinned"
)

// hook is a program at an interface: a link of tcx or XDP, or a filter of tc. It
// stays after Close if it is pinned, and ends otherwise.
type hook interface {
	// replace makes the hook run another program from the next packet on.
	replace(*ebpf.Program) error
	// misplaced returns what is wrong with the hook, or nil: it is not attached to
	// the interface, or runs after another program.
	misplaced(index int) (why, err error)
	// behind describes the programs that run after the hook's.
	behind() ([]string, error)
	// pin keeps the hook after Close, by an entry of a bpffs.
	pin(path string) error
	// end detaches the program, removes the pin, and closes the hook.
	end() error
	io.Closer
}

// pinnedHook returns the hook that is pinned at path; nil if there is none. A filter
// is one of the network namespace of tc.
func pinnedHook(tc *netlink.Handle, path string) (hook, error) {
	if strings.HasPrefix(filepath.Base(path), filterPrefix) {
		return pinnedFilter(tc, path)
	}
	l, err := pinned.Link(path)
	if err != nil || l == nil {
		return nil, explain(err)
	}
	return linkHook{l}, nil
}

// linkHook is a link of tcx (Linux 6.6 and newer) or XDP.
type linkHook struct{ link.Link }

func (l linkHook) replace(program *ebpf.Program) error { return l.Update(program) }

func (l linkHook) pin(path string) error { return l.Pin(path) }

func (l linkHook) end() error { return pinned.End(l) }

// misplaced implements hook. XDP has one program.
func (l linkHook) misplaced(index int) (why, err error) {
	info, err := l.Info()
	if err != nil {
		return nil, err
	}
	if xdp := info.XDP(); xdp != nil {
		if int(xdp.Ifindex) != index {
			return errDetached, nil
		}
		return nil, nil
	}
	tcx := info.TCX()
	if tcx == nil {
		return nil, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
	}
	if int(tcx.Ifindex) != index {
		return errDetached, nil
	}
	chain, err := netdev.Programs(int(tcx.Ifindex), ebpf.AttachType(tcx.AttachType))
	if err != nil {
		return nil, err
	}
	if len(chain) > 0 && chain[0].ID != info.Program { // promise: our-programs-are-first
		return fmt.Errorf("runs after %s", nameOf(chain[0].ID)), nil
	}
	return nil, nil
}

// behind implements hook.
func (l linkHook) behind() (names []string, err error) {
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
