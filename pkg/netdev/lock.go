// Package netdev holds what a network device needs beside rtnetlink: the lock that
// keeps two flannels off one device, and ethtool's offload switches.
package netdev

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// ErrLocked means that another process has locked the device.
var ErrLocked = errors.New("another flannel on this host uses it")

// Lock makes the device of that name this process's own among all flannels
// of the network namespace of the calling thread, until Close or the end of
// the process. The device need not exist. Errors: ErrLocked.
//
// The lock is the name of an abstract socket (unix(7)). Such a name belongs to a
// network namespace, as a device does, and goes with the process.
func Lock(device string) (io.Closer, error) {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@flannel/device/" + device, Net: "unixgram"})
	if errors.Is(err, unix.EADDRINUSE) {
		err = ErrLocked
	}
	if err != nil {
		return nil, fmt.Errorf("lock device %s: %w", device, err)
	}
	return l, nil
}
