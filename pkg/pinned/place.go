package pinned

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/ownfile"
)

// Root is the directory of all pins: the parent of those that Prepare makes.
func Root() string { return filepath.Join(lastingBPFFS(), "flannel") }

// Prepare makes a directory of pins below [Root], and mounts a bpffs if there is none.
// removeGone removes another directory there, maybe of another network namespace, if
// what it is for has gone: namespaces end without notice.
func Prepare(dir string, removeGone func(dir string) error) error {
	if strings.HasPrefix(dir, bpffs+"/") {
		if err := mountBPFFS(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory for pins: %w", err)
	}
	if !isBPFFS(dir) {
		return fmt.Errorf("%s is not on a bpffs: %w", dir, unix.EINVAL)
	}
	// A bpffs has mode 1777 by default: any user may make the folder first.
	if err := errors.Join(ownfile.CheckDir(filepath.Dir(dir)), ownfile.CheckDir(dir)); err != nil {
		return err
	}
	siblings, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("look for left-over pins: %w", err)
	}
	for _, s := range siblings {
		other := filepath.Join(filepath.Dir(dir), s.Name())
		if other == dir {
			continue
		}
		if err := removeGone(other); err != nil {
			return fmt.Errorf("look at left-over pins %s: %w", other, err)
		}
	}
	return nil
}

// Remove removes a directory of pins, and that of all pins after the last one.
func Remove(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	err := os.Remove(filepath.Dir(dir))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EBUSY) {
		return nil
	}
	return err
}
