// Package pinned keeps eBPF programs and maps in a directory of a bpffs, from which
// the next process takes them over.
//
//	ROOT/objects-HASH        programs and maps under their names
//	ROOT/objects-HASH-new    the same while they are being pinned
package pinned

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"
)

const (
	// prefix begins the names of the directories.
	prefix = "objects-"
	// Unfinished ends the name of an incomplete directory. A bpffs allows no dots in
	// names.
	Unfinished = "-new"
)

// Objects are programs and maps by their names.
type Objects struct {
	Programs map[string]**ebpf.Program
	Maps     map[string]**ebpf.Map
}

// Dir returns the directory below root for objects of this code, with the layout of
// their maps, and with these constants. Objects of others are not in it.
func Dir(root string, code []byte, constants ...any) string {
	h := sha256.New()
	h.Write(code)
	fmt.Fprintln(h, constants...)
	return filepath.Join(root, prefix+hex.EncodeToString(h.Sum(nil)[:16]))
}

// Load opens the objects in dir. found is false if there is no dir.
func (o Objects) Load(dir string) (found bool, err error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	var errs []error
	for name, m := range o.Maps {
		var err error
		*m, err = ebpf.LoadPinnedMap(filepath.Join(dir, name), nil)
		errs = append(errs, err)
	}
	for name, program := range o.Programs {
		var err error
		*program, err = ebpf.LoadPinnedProgram(filepath.Join(dir, name), nil)
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return false, err
	}
	return true, nil
}

// Save pins the objects in dir, atomically by a rename, unless dir exists. It removes
// the directories of others below the same root.
func (o Objects) Save(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := o.pin(dir + Unfinished); err != nil {
			return err
		}
		if err := os.Rename(dir+Unfinished, dir); err != nil {
			return err
		}
	}
	root := filepath.Dir(dir)
	entries, err := os.ReadDir(root)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if path := filepath.Join(root, e.Name()); strings.HasPrefix(e.Name(), prefix) && path != dir {
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (o Objects) pin(dir string) error {
	if err := os.RemoveAll(dir); err != nil { // of a process that was killed
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for name, m := range o.Maps {
		if err := pinClone(*m, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	for name, program := range o.Programs {
		if err := pinClone(*program, filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("pin program %s: %w", name, err)
		}
	}
	return nil
}

// pinClone pins a clone. The library does nothing for an object that it has pinned
// at that path before, also if the pin has gone.
func pinClone[T interface {
	Clone() (T, error)
	Pin(string) error
	Close() error
}](object T, path string) error {
	clone, err := object.Clone()
	if err != nil {
		return err
	}
	return errors.Join(clone.Pin(path), clone.Close())
}
