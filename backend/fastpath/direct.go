package fastpath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/flannel/pkg/pinned"
)

// directMark is in the names of directories of pins without a tunnel device. A device's
// name has no colon (dev_valid_name in net/core/dev.c).
const directMark = "-direct:"

// Direct returns the configuration of a path without a tunnel, but for Subnet and
// Marks. It runs in the network namespace of the path, as RemoveDirect does.
func Direct(network netip.Prefix) (Config, error) {
	name := strings.ReplaceAll(network.String(), "/", "-")
	namespace, err := pinned.Namespace()
	// A bpffs allows no dots in names.
	dir := namespace + directMark + strings.ReplaceAll(name, ".", "_")
	return Config{Name: name, Network: network, PinDir: filepath.Join(pinned.Root(), dir)}, err
}

// RemoveDirect removes what an earlier run has left for a network without a tunnel. It
// is no error if nothing is there.
func RemoveDirect(network netip.Prefix) error {
	left, err := LeftDirect(network)
	if err != nil || !left {
		return err
	}
	c, err := Direct(network)
	if err != nil {
		return err
	}
	return Remove(c.PinDir, c.Name)
}

// LeftDirect reports whether an earlier run has left something for RemoveDirect.
func LeftDirect(network netip.Prefix) (bool, error) {
	c, err := Direct(network)
	if err != nil {
		return false, err
	}
	_, err = os.Stat(c.PinDir)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for pins of fast path: %w", err)
	}
	return true, nil
}

// prepareDirect makes the directory of pins, for the current network namespace. It
// removes those of namespaces that have gone.
func (c Config) prepareDirect() error {
	err := pinned.Prepare(c.PinDir, func(dir string) error {
		if !strings.Contains(filepath.Base(dir), directMark) {
			return nil
		}
		gone, err := pinned.NamespaceIsGone(dir)
		if err == nil && gone {
			err = os.RemoveAll(dir)
		}
		return err
	})
	if err != nil {
		return err
	}
	return pinned.PinNamespace(c.PinDir)
}
