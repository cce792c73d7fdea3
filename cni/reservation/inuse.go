package reservation

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/prometheus/procfs"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// initialPIDNamespace is the inode of the host's own PID namespace
// (PROC_PID_INIT_INO, include/linux/proc_ns.h).
const initialPIDNamespace = 0xEFFFFFFC

// CheckHost returns an error if this process sees only a container's processes.
// InUse then lacks the addresses of the others.
func CheckHost() error {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return fmt.Errorf("stat /proc/self/ns/pid: %w", err)
	}
	if st.Ino != initialPIDNamespace {
		return errors.New("this process is in a container that does not see the host's processes: run it on the host, or with hostPID: true")
	}
	return nil
}

// InUse returns the addresses that an interface has, in any network namespace of
// this host. A namespace has a process, or is mounted where the host's first
// process sees it.
func InUse() (map[netip.Addr]bool, error) {
	paths, err := namespaces()
	if err != nil {
		return nil, fmt.Errorf("list the network namespaces: %w", err)
	}
	used := make(map[netip.Addr]bool)
	for _, path := range paths {
		if err := addAddrs(used, path); err != nil {
			return nil, fmt.Errorf("list the addresses in network namespace %s: %w", path, err)
		}
	}
	return used, nil
}

// namespaces returns a path to each network namespace, except that of the host's
// first process alone: even root may be forbidden to see it, and no pod is in it.
func namespaces() ([]string, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, err
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return path == "/proc/1/ns/net" })
	mounted, err := mountedNamespaces()
	if err != nil {
		return nil, err
	}
	seen := make(map[uint64]bool)
	var unique []string
	for _, path := range append(paths, mounted...) {
		var st unix.Stat_t
		switch err := unix.Stat(path, &st); {
		case gone(err): // the process ended
		case err != nil:
			return nil, &os.PathError{Op: "stat", Path: path, Err: err}
		case !seen[st.Ino]:
			seen[st.Ino] = true
			unique = append(unique, path)
		}
	}
	return unique, nil
}

// mountedNamespaces returns the network namespaces that have a name: those that the
// host's first process sees, or else this process. An engine that starts a pod
// mounts its namespace before the pod has a process.
func mountedNamespaces() (paths []string, err error) {
	pid, root := 1, "/proc/1/root"
	if _, err := os.Stat(root + "/"); err != nil {
		pid, root = os.Getpid(), "/"
	}
	proc, err := procfs.NewProc(pid)
	if err != nil {
		return nil, err
	}
	mounts, err := proc.MountInfo()
	for _, m := range mounts {
		if m.FSType == "nsfs" && strings.HasPrefix(m.Root, "net:") {
			paths = append(paths, filepath.Join(root, m.MountPoint))
		}
	}
	return paths, err
}

// addAddrs adds the addresses in the namespace. One that ended has none.
func addAddrs(used map[netip.Addr]bool, path string) error {
	ns, err := netns.GetFromPath(path)
	if gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if errors.Is(err, unix.EINVAL) { // unmounted since: the path is an empty file
		return nil
	}
	if err != nil {
		return err
	}
	defer h.Close()
	addrs, err := h.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok {
			used[addr.Unmap()] = true
		}
	}
	return nil
}

// gone reports whether the error is that of a process that ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) }
