// Package netdev holds what a network device needs beside rtnetlink: the lock that
// keeps two flannels off one device, ethtool's offload switches, and its programs of
// tcx.
package netdev

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"
)

// ErrLocked means that another process has locked the device.
var ErrLocked = errors.New("another flannel on this host uses it")

// lockPrefix begins the abstract socket names (unix(7)) that locks are.
const lockPrefix = "flannel/device/"

// Lock makes the device of that name this process's own among all flannels
// of the network namespace of the calling thread, until Close or the end of
// the process. The device need not exist. Errors: ErrLocked.
//
// The lock is the name of an abstract socket (unix(7)). Such a name belongs to a
// network namespace, as a device does, and goes with the process. Any user may
// take one. Lock passes over a name of another user than root and the present
// one; the lock is a longer name then.
func Lock(device string) (io.Closer, error) {
	l, err := lock(lockPrefix + device)
	if err != nil {
		return nil, fmt.Errorf("lock device %s: %w", device, err)
	}
	return l, nil
}

func lock(name string) (io.Closer, error) {
	l, err := bind(name)
	if errors.Is(err, unix.EADDRINUSE) {
		others, listed := holders(name)
		if listed != nil {
			return nil, fmt.Errorf("%w, or the socket @%s is another program's (see: ss -xlp): %w", ErrLocked, name, listed)
		}
		if slices.ContainsFunc(others, holder.trusted) { // promise: lock-of-another-user-is-none
			return nil, ErrLocked
		}
		log.Warningf("pass over the name of another user's socket name=@%s", name)
		l, err = bind(name + "/" + rand.Text())
	}
	if err != nil {
		return nil, err
	}
	// A flannel that passed over a name, which is free by now, has a longer one.
	others, err := holders(name)
	if err != nil {
		log.V(1).Infof("look for other locks: %v", err)
		return l, nil
	}
	own, err := inode(l)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	if slices.ContainsFunc(others, func(h holder) bool { return h.inode != own && h.trusted() }) {
		return nil, errors.Join(ErrLocked, l.Close())
	}
	return l, nil
}

func bind(name string) (*net.UnixConn, error) {
	return net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@" + name, Net: "unixgram"})
}

// inode is the number by which the kernel lists a socket.
func inode(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.Fstat(int(fd), &st) })
	return uint32(st.Ino), errors.Join(err, failed)
}
