package netnstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pinsDir is where flannel keeps its eBPF programs, below a directory for each
// network namespace and device. They outlive process and namespace.
const pinsDir = "/sys/fs/bpf/flannel"

// Pins returns the folders in which flannel's programs of the host are pinned.
func (h *Host) Pins() ([]string, error) {
	var cookie uint64
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identify network namespace %s: %w", h.full, err)
	}
	return filepath.Glob(fmt.Sprintf("%s/netns-%d-*", pinsDir, cookie))
}

// unpin removes what was pinned for devices of the host.
func unpin(h *Host) error {
	dirs, err := h.Pins()
	if err != nil || len(dirs) == 0 {
		return err
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove pins: %w", err)
		}
	}
	// Of the other namespaces' directory only the last one can.
	err = os.Remove(pinsDir)
	for _, others := range []error{unix.ENOTEMPTY, unix.ENOENT, unix.EBUSY} {
		if errors.Is(err, others) {
			return nil
		}
	}
	return err
}
