// Package ownfile finds files and folders that another user could have made or
// could change: a key to which others know the private part, a state that names
// another host's lease, a pin that leads to another program.
package ownfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

const (
	groupWrites = 0o020
	othersWrite = 0o002
)

// CheckFile returns an error if the file at path belongs to another user than
// root and the present one, or if another user may write to it. The error names
// path, owner or mode, and the remedy. There is no error if nothing is there.
func CheckFile(path string) error { return check(path, "file", false) }

// CheckDir is CheckFile of a folder. Others may write to a folder with the sticky
// bit, such as /tmp, where they cannot replace our files (inode(7)). A caller
// checks each file there.
func CheckDir(path string) error { return check(path, "folder", true) }

func check(path, kind string, sticky bool) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("check owner: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("check owner of %s: no owner in a %T", path, info.Sys())
	}
	if st.Uid != 0 && st.Uid != uint32(os.Geteuid()) { // promise: files-of-others-are-refused
		return fmt.Errorf("%s %s belongs to user %d, who can change it: remove it, or run chown %d %s if you trust what is in it", kind, path, st.Uid, os.Geteuid(), path)
	}
	mode := info.Mode()
	if sticky && mode&fs.ModeSticky != 0 {
		return nil
	}
	writers := fs.FileMode(othersWrite)
	if st.Gid != 0 && st.Gid != uint32(os.Getegid()) {
		writers |= groupWrites
	}
	if mode.Perm()&writers != 0 {
		return fmt.Errorf("%s %s has mode %v, so that other users can change it: run chmod go-w %s if you trust what is in it", kind, path, mode, path)
	}
	return nil
}
