package embed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockDir locks dir until the file is closed. etcd locks its database too, but
// waits for the lock without a limit and without a log line.
func lockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's data directory: %w", withRemedy(err))
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make etcd's data directory private: %w", withRemedy(err))
	}
	lock, err := tryLock(dir)
	if err != nil {
		return nil, err
	}
	// Another program's etcd may use the same data.
	db, err := tryLock(filepath.Join(dir, "member", "snap", "db"))
	switch {
	case err == nil:
		db.Close()
	case !errors.Is(err, os.ErrNotExist):
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// withRemedy adds to err what a user can do who may not write there.
func withRemedy(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; run flannel as root, or name a folder of your own (-state-dir)", err)
	}
	return err
}

func tryLock(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("lock etcd's data: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock etcd's data: %s is in use by another process", path)
		}
		return nil, fmt.Errorf("lock etcd's data: %s: %w", path, err)
	}
	return f, nil
}
