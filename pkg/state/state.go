// Package state keeps values in files that outlive the process and the host's
// boot. A file is written whole or not at all, and one that was damaged since
// is known by its checksum. Nobody but its owner reads it: there may be a secret
// in it, such as the preshared key of a network's configuration.
//
//	flannel-state 1 sha256:9f86d0…\n
//	{"JSON": "of the value"}
package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// header begins every file; the number changes with the layout.
const header = "flannel-state 1 sha256:"

// ErrDamaged: the file is there and is not what Write wrote.
var ErrDamaged = errors.New("file is damaged")

// Write puts v into the file at path, in place of what is there. The folder is
// made if it is missing. After a crash, the power's loss included, the file is
// the old one or the new one (fsync(2) and rename(2)).
func Write(path string, v any) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("write state: %w", err)
		}
	}()
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// CreateTemp gives mode 0600.
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s%x\n", header, sha256.Sum256(body))
	if err == nil {
		_, err = f.Write(body)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(dir)
}

// syncDir makes the rename last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Read fills v with what Write put into the file at path. Errors: fs.ErrNotExist,
// ErrDamaged, or the failure to read.
func Read(path string, v any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	line, body, _ := bytes.Cut(text, []byte("\n"))
	if string(line) != fmt.Sprintf("%s%x", header, sha256.Sum256(body)) {
		return fmt.Errorf("read state %s: %w", path, ErrDamaged)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("read state %s: %w: %w", path, ErrDamaged, err)
	}
	return nil
}
