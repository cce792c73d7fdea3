// Package nodeid gives a host an identity that survives reboots, new addresses and
// new leases: a random number, made once and kept in a file.
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

	"github.com/coreos/flannel/pkg/atomicfile"
)

// size is the length of an identity, in bytes; the file holds it as lower-case
// hexadecimal digits and a newline, as /etc/machine-id does.
const size = 16

// ID is a host's identity.
type ID [size]byte

// String returns the identity as lower-case hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// fileName is the file's name in the state folder.
const fileName = "node-id"

// Load returns the identity in <dir>/node-id. If there is no file, Load makes it
// and the folder. Concurrent calls, also of several processes, return the same
// identity. A damaged file is an error: a new identity would look like a new host.
func Load(dir string) (ID, error) {
	path := filepath.Join(dir, fileName)
	id, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = atomicfile.Create(path, fmt.Appendln(nil, New()), 0o644)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return ID{}, fmt.Errorf("make node id: %w", err)
		}
		id, err = read(path)
	}
	if err != nil {
		return ID{}, fmt.Errorf("read node id: %w", err)
	}
	return id, nil
}

// Replace writes a new identity to <dir>/node-id. It is for a host whose identity
// another host has as well, after a copy of its disk.
func Replace(dir string) (ID, error) {
	if err := os.Remove(filepath.Join(dir, fileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
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

// New returns a random identity, which no file holds.
func New() (id ID) {
	rand.Read(id[:]) // never fails (crypto/rand)
	return id
}
