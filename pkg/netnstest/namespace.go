package netnstest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where iproute2 keeps named namespaces.
const netnsDir = "/run/netns"

// create makes a named namespace and leaves the calling thread where it was.
func create(name string) (netns.NsHandle, error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return netns.None(), fmt.Errorf("open current network namespace: %w", err)
	}
	defer home.Close()
	ns, err := netns.NewNamed(name)
	if back := netns.Set(home); back != nil {
		return netns.None(), errors.Join(err, fmt.Errorf("return from network namespace %s: %w", name, back))
	}
	runtime.UnlockOSThread()
	if err != nil {
		return netns.None(), fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return ns, nil
}

// remove takes the name away. The kernel destroys the namespace, and every
// device in it, when its last process and open file are gone.
func remove(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: not a mount point, the left-over of a creation cut short.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}

// within runs f with the calling goroutine's thread in ns.
func within(ns netns.NsHandle, f func() error) (err error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open current network namespace: %w", err)
	}
	defer home.Close()
	if err := netns.Set(ns); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	// Deferred, since f may end the goroutine, as testing.TB's Fatalf does.
	defer func() {
		if back := netns.Set(home); back != nil {
			err = errors.Join(err, fmt.Errorf("return from network namespace: %w", back))
			return // and stay locked: the thread is spoilt
		}
		runtime.UnlockOSThread()
	}()
	return f()
}
