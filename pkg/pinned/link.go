package pinned

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf/link"
)

// Link opens the link that is pinned at path; nil if there is none.
func Link(path string) (link.Link, error) {
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return l, err
}

// End detaches a link, removes its pin, and closes it. The removal of a pin alone
// detaches the program some time later (bpf_link_put, kernel/bpf/syscall.c).
func End(l link.Link) error { return errors.Join(l.Detach(), l.Unpin(), l.Close()) }

// InterfaceOf returns the index of the interface of a link; 0 after that has gone.
func InterfaceOf(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex), nil
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex), nil
	}
	return 0, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
}
