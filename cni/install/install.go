// Package install copies the program of the plugins, and their configuration, to the
// folders of CNI.
package install

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/coreos/flannel/cni"
	"github.com/coreos/flannel/cni/bundled"
	"github.com/coreos/flannel/cni/bundled/link"
	"github.com/coreos/flannel/pkg/atomicfile"
)

// Plugins installs the program in the folder as the plugin flannel, and the
// bundled plugins that the folder lacks. It returns the names of those that are
// new or replaced.
func Plugins(program, folder string) (done []string, err error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	add := func(name string, changed bool) {
		if changed {
			done = append(done, name)
		}
	}
	changed, err := File(program, filepath.Join(folder, cni.Name))
	if err != nil {
		return nil, err
	}
	add(cni.Name, changed)
	missing, ours, err := bundledIn(folder)
	if err != nil || len(missing)+len(ours) == 0 {
		return done, err
	}
	if changed, err = File(program, filepath.Join(folder, link.Program)); err != nil {
		return done, err
	}
	for _, name := range ours {
		add(name, changed)
	}
	for _, name := range missing {
		if err := link.Make(filepath.Join(folder, name)); err != nil {
			return done, err
		}
		add(name, true)
	}
	return done, nil
}

// bundledIn returns the bundled plugins that the folder lacks, and those of which
// it has a link to link.Program.
func bundledIn(folder string) (missing, ours []string, err error) {
	for _, name := range bundled.Names() {
		path := filepath.Join(folder, name)
		if link.IsOurs(path) {
			ours = append(ours, name)
			continue
		}
		switch _, err := os.Stat(path); {
		case errors.Is(err, fs.ErrNotExist): // also a link to nothing
			missing = append(missing, name)
		case err != nil:
			return nil, nil, err
		}
	}
	return missing, ours, nil
}

// File makes to a copy of the file from, with its mode. If to is a folder, the copy
// has from's name in it. A copy that is current stays. File reports whether it
// copied.
func File(from, to string) (changed bool, err error) {
	if info, err := os.Stat(to); err == nil && info.IsDir() {
		to = filepath.Join(to, filepath.Base(from))
	}
	if same, err := equal(from, to); same || err != nil {
		return false, err
	}
	return true, atomicfile.Copy(from, to)
}

// equal reports whether to is a regular file with the content and mode of from.
func equal(from, to string) (bool, error) {
	a, err := os.Open(from)
	if err != nil {
		return false, err
	}
	defer a.Close()
	info, err := a.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(to)
	if err != nil || there.Mode() != info.Mode() || there.Size() != info.Size() {
		return false, nil // also if to cannot be read: the copy shows why
	}
	b, err := os.Open(to)
	if err != nil {
		return false, nil
	}
	defer b.Close()
	return equalContent(a, b)
}

func equalContent(a, b io.Reader) (bool, error) {
	const size = 1 << 16
	x, y := make([]byte, size), make([]byte, size)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		ended := errors.Is(errA, io.EOF) || errors.Is(errA, io.ErrUnexpectedEOF)
		switch {
		case errA != nil && !ended:
			return false, errA
		case !bytes.Equal(x[:n], y[:m]):
			return false, nil
		case ended, errB != nil:
			return ended, nil
		}
	}
}
