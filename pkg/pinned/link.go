package pinned

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
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

// ProgramOf returns the program of the link that is pinned at path; ok is false if there
// is none.
func ProgramOf(path string) (id ebpf.ProgramID, ok bool, err error) {
	l, err := Link(path)
	if l == nil || err != nil {
		return 0, false, err
	}
	id, _, err = Attachment(l)
	if err := errors.Join(err, l.Close()); err != nil {
		return 0, false, fmt.Errorf("look at pinned link %s: %w", path, err)
	}
	return id, true, nil
}

// ProgramsBeside returns the programs of the links that are pinned in the directories
// beside dir, under names that match a pattern of [filepath.Glob].
func ProgramsBeside(dir, pattern string) ([]ebpf.ProgramID, error) {
	root, own := filepath.Split(dir)
	paths, err := filepath.Glob(filepath.Join(root, "*", pattern))
	if err != nil {
		return nil, fmt.Errorf("look for pins beside %s: %w", dir, err)
	}
	var programs []ebpf.ProgramID
	for _, path := range paths {
		if filepath.Base(filepath.Dir(path)) == own {
			continue
		}
		id, ok, err := ProgramOf(path)
		if err != nil {
			return nil, err
		}
		if ok { // else its process has just removed it
			programs = append(programs, id)
		}
	}
	return programs, nil
}

// End detaches a link, removes its pin, and closes it. The removal of a pin alone
// detaches the program some time later (bpf_link_put, kernel/bpf/syscall.c).
func End(l link.Link) error { return errors.Join(l.Detach(), l.Unpin(), l.Close()) }

// Attachment returns the program of a link of tcx or XDP and the index of its interface;
// 0 after that has gone.
func Attachment(l link.Link) (program ebpf.ProgramID, index int, err error) {
	info, err := l.Info()
	if err != nil {
		return 0, 0, err
	}
	if tcx := info.TCX(); tcx != nil {
		return info.Program, int(tcx.Ifindex), nil
	}
	if xdp := info.XDP(); xdp != nil {
		return info.Program, int(xdp.Ifindex), nil
	}
	return 0, 0, fmt.Errorf("link %d is neither tcx nor XDP", info.ID)
}
