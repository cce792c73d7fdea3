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

// netnsDir is the folder of named namespaces, as iproute2 has it.
const netnsDir = "/run/netns"

// create makes a named namespace.
func create(name string) (ns netns.NsHandle, err error) {
	ns = netns.None()
	err = onThread(func() error {
		ns, err = netns.NewNamed(name) // which enters it
		return err
	})
	if err != nil {
		return ns, fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return ns, nil
}

// within runs f with the calling goroutine's thread in ns.
func within(ns netns.NsHandle, f func() error) error {
	return onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f with the goroutine locked to its thread, and returns the thread
// to its network namespace afterwards. If it cannot, the goroutine stays locked,
// so that the thread ends with it.
func onThread(f func() error) (err error) {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open current network namespace: %w", err)
	}
	defer home.Close()
	// f may end the goroutine, as testing.TB's Fatalf does.
	defer func() {
		if back := netns.Set(home); back != nil {
			err = errors.Join(err, fmt.Errorf("return from network namespace: %w", back))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// remove removes the namespace's name. The kernel destroys the namespace and its
// devices once no process is in it and no file of it is open.
func remove(name string) error {
	path := filepath.Join(netnsDir, name)
	// EINVAL: not a mount point, but a file that an interrupted creation left.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace: %w", err)
	}
	return nil
}
