// Package link knows the links in CNI's folder that lead to flannel's program, and
// which plugins there run in the process of the plugin that needs them.
package link

import (
	"errors"
	"io/fs"
	"os"
)

// Program is the file in CNI's folder that has all bundled plugins. It is not the
// plugin flannel: a return to another release of flannel replaces that file, and its
// program would run under the names of the links.
const Program = "flannel-plugins"

// IsOurs reports whether the file is a link to Program.
func IsOurs(path string) bool {
	to, err := os.Readlink(path)
	return err == nil && to == Program
}

// Make makes the file a link to Program.
func Make(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(Program, path)
}
