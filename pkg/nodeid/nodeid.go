// Package nodeid gives a host an identity that outlives reboots, new addresses
// and new leases: a random number, made once and kept in a file.
package nodeid

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// size is the length of an identity, in bytes; the file holds it as lower-case
// hexadecimal digits and a newline, as /etc/machine-id does.
const size = 16

// ID is a host's identity.
type ID [size]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Load returns the identity in <dir>/node-id; where there is none, it makes
// one, and the folder too. Of processes that do so at once all get the same.
// A damaged file is an error: a new identity would look like a new host.
func Load(dir string) (ID, error) {
	path := filepath.Join(dir, "node-id")
	id, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(dir, path); err != nil {
			return ID{}, fmt.Errorf("make node id: %w", err)
		}
		id, err = read(path)
	}
	if err != nil {
		return ID{}, fmt.Errorf("read node id: %w", err)
	}
	return id, nil
}

// Replace gives the host in <dir>/node-id a new identity in place of one that
// another host has as well, as after a copy of its disk.
func Replace(dir string) (ID, error) {
	if err := os.Remove(filepath.Join(dir, "node-id")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return ID{}, fmt.Errorf("replace node id: %w", err)
	}
	return Load(dir)
}

func read(path string) (id ID, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return id, err
	}
	b, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(b) != size {
		return id, fmt.Errorf("%s does not hold %d hexadecimal digits; delete it to get a new identity", path, 2*size)
	}
	return ID(b), nil
}

// create puts a whole file in place, or leaves the one that is there: a link,
// unlike a rename, never replaces.
func create(dir, path string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".node-id-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	var id ID
	rand.Read(id[:]) // never fails (crypto/rand)
	_, err = fmt.Fprintln(f, id)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the new name outlive a crash.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
