package pinned

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Namespace returns a name for the current network namespace, by which namespaces do
// not share directories. It has the namespace's cookie (SO_NETNS_COOKIE), which is
// unique until the next boot. A kernel without (before Linux 5.14) has the inode's
// number, which is unique among the namespaces that exist.
func Namespace() (name string, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("name directory for pins: %w", err)
		}
	}()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == nil {
		return fmt.Sprintf("netns-%d", cookie), nil
	}
	if !errors.Is(err, unix.ENOPROTOOPT) {
		return "", err
	}
	var s unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
		return "", err
	}
	return fmt.Sprintf("netns-i%d", s.Ino), nil
}

// namespacePin is a map with one entry, the loopback interface of the network
// namespace. The kernel deletes the entry with the interface (dev_map_notification,
// kernel/bpf/devmap.c), and so the map tells other namespaces whether this one exists.
const namespacePin = "namespace"

// PinNamespace pins a map for the current network namespace, if there is none.
func PinNamespace(dir string) error {
	path := filepath.Join(dir, namespacePin)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = rlimit.RemoveMemlock() // before Linux 5.11 a map counts against it
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "namespace", Type: ebpf.DevMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make map of the namespace: %w", Explain(err, "flannel"))
	}
	defer m.Close()
	if err := m.Put(uint32(0), uint32(loopback)); err != nil {
		return fmt.Errorf("enter loopback interface into map of the namespace: %w", err)
	}
	return m.Pin(path)
}

// loopback is the index of the loopback interface in every network namespace
// (LOOPBACK_IFINDEX, include/net/flow.h).
const loopback = 1

// NamespaceIsGone reports whether the namespace of a directory with filters exists no
// longer. False if the directory does not tell.
func NamespaceIsGone(dir string) (bool, error) {
	m, err := ebpf.LoadPinnedMap(filepath.Join(dir, namespacePin), nil)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var index uint32
	err = m.Lookup(uint32(0), &index)
	gone := errors.Is(err, ebpf.ErrKeyNotExist)
	if gone {
		err = nil
	}
	return gone, errors.Join(err, m.Close())
}
