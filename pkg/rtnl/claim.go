package rtnl

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// ErrClaimed: another process has the device.
var ErrClaimed = errors.New("another flannel on this host uses it")

// Claim makes the device of that name this process's own among all flannels
// of the network namespace of the calling thread, until Close or the end of
// the process. The device need not exist. Errors: ErrClaimed.
//
// The claim is an abstract socket's name (unix(7)), which belongs to a network
// namespace as the device does, and leaves nothing behind.
func Claim(device string) (io.Closer, error) {
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: "@flannel/device/" + device, Net: "unixgram"})
	if errors.Is(err, unix.EADDRINUSE) {
		err = ErrClaimed
	}
	if err != nil {
		return nil, fmt.Errorf("claim device %s: %w", device, err)
	}
	return l, nil
}
