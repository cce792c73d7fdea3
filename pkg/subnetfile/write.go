package subnetfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/atomicfile"
)

// Write puts e at path, mode 0644. A reader sees the old file or the new one,
// never a part: the text goes to a temporary file in the same folder, reaches
// the disk, and is then renamed. Missing folders are made with mode 0755.
//
// A file that is a mount point, as of "docker run -v FILE:/run/flannel/subnet.env",
// cannot be replaced. It is written in place, in whole lines. Its mode stays.
func Write(path string, e Env) error {
	if err := e.check(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := Check(path); err != nil {
		return fmt.Errorf("write %w", err)
	}
	write := replace
	if isMountPoint(path) {
		write = overwrite
	}
	err := write(path, e.text())
	if errors.Is(err, unix.EBUSY) { // a mount point, before Linux 5.8
		err = overwrite(path, e.text())
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Check returns an error if path is there and is no file that Write could
// replace: a folder, a named pipe, a device node.
func Check(path string) error {
	i, err := os.Lstat(path)
	if err == nil && i.Mode()&os.ModeSymlink != 0 {
		if i, err = os.Stat(path); err != nil {
			return nil // Write replaces a link that leads nowhere
		}
	}
	if err == nil && !i.Mode().IsRegular() {
		return fmt.Errorf("%s: it is there, and not a regular file but %s; remove it, or name another file with -subnet-file", path, kind(i.Mode()))
	}
	return nil
}

// kind names what is no regular file.
func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a folder"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device node"
	}
	return mode.Type().String()
}

// isMountPoint reports whether another file is mounted at path (statx(2), since
// Linux 5.8). rename(2) gives EBUSY for it.
func isMountPoint(path string) bool {
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st)
	return err == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// replace puts a new file at path. The container engine may run as another user.
func replace(path, text string) error { return atomicfile.Write(path, []byte(text), 0o644) }

// overwrite gives the file at path a new content in steps that each leave whole
// lines. Empty lines make up for a difference in length: sh and systemd pass
// them over.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	old, size := info.Size(), int64(len(text))
	if old > maxSize { // no subnet.env
		return errors.Join(fmt.Errorf("the file mounted there has %d bytes, more than %d", old, maxSize), f.Close())
	}
	lines := func(n int64) []byte { return []byte(strings.Repeat("\n", int(max(0, n)))) }
	if _, err = f.WriteAt(lines(size-old), old); err == nil {
		_, err = f.WriteAt(append([]byte(text), lines(old-size)...), 0)
	}
	if err == nil {
		err = f.Truncate(size)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
