package netnstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// pinsDir holds flannel's pinned eBPF programs, in a directory for each network
// namespace and device. Pins outlive process and namespace.
const pinsDir = "/sys/fs/bpf/flannel"

// Pins returns the directories of the host's pinned programs.
func (h *Host) Pins() ([]string, error) {
	var namespace string
	err := h.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		namespace = fmt.Sprintf("netns-%d-", cookie)
		if errors.Is(err, unix.ENOPROTOOPT) { // before Linux 5.14
			var s unix.Stat_t
			err = unix.Stat("/proc/thread-self/ns/net", &s)
			namespace = fmt.Sprintf("netns-i%d-", s.Ino)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("identify network namespace %s: %w", h.full, err)
	}
	return filepath.Glob(filepath.Join(pinsDir, namespace+"*"))
}

// unpin removes the pins of the host's devices.
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
	// The common directory goes with the last namespace's pins.
	err = os.Remove(pinsDir)
	for _, others := range []error{unix.ENOTEMPTY, unix.ENOENT, unix.EBUSY} {
		if errors.Is(err, others) {
			return nil
		}
	}
	return err
}
