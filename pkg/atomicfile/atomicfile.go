// Package atomicfile writes whole files. A reader sees all of a file or none, also
// after a crash of the host: the data is synced to a temporary file in the same
// folder, which then gets the name, and the folder is synced.
package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Write replaces the file at path. Its mode is exactly mode: neither the umask nor
// the old file's mode applies. Missing folders are made, with mode 0755.
func Write(path string, data []byte, mode fs.FileMode) error {
	return write(path, bytes.NewReader(data), mode, (*renameio.PendingFile).CloseAtomicallyReplace)
}

// Copy is Write with the content and the mode of the file from.
func Copy(from, path string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	info, err := source.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("copy %s: it is no regular file", from)
	}
	return write(path, source, info.Mode().Perm(), (*renameio.PendingFile).CloseAtomicallyReplace)
}

// Create is like Write, but leaves a file that is at path, and then returns
// fs.ErrExist: link(2), unlike rename(2), never replaces a file.
func Create(path string, data []byte, mode fs.FileMode) error {
	return write(path, bytes.NewReader(data), mode, func(f *renameio.PendingFile) error {
		if err := f.Sync(); err != nil {
			return err
		}
		return os.Link(f.Name(), path)
	})
}

// write calls name, which gives the file with the data its name.
func write(path string, data io.Reader, mode fs.FileMode, name func(*renameio.PendingFile) error) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(dir), renameio.WithStaticPermissions(mode))
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, data); err == nil {
		err = name(f)
	}
	if err = errors.Join(err, f.Cleanup()); err != nil {
		return err
	}
	return syncFolder(dir)
}

// syncFolder makes new names in dir survive a power failure. It is no error if the
// file system cannot do that (EINVAL, fsync(2)).
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) {
		err = nil
	}
	return errors.Join(err, d.Close())
}
