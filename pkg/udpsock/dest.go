package udpsock

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Dest is where datagrams go, in the form that the kernel reads. It is
// immutable; a Sender tells destinations apart by their pointers.
type Dest struct{ sockaddr unix.RawSockaddrInet4 }

// NewDest makes a Dest of an IPv4 address and a port.
func NewDest(addr [4]byte, port uint16) *Dest {
	// The port is big-endian whatever the machine's byte order.
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], port)
	return &Dest{unix.RawSockaddrInet4{
		Family: unix.AF_INET,
		Port:   binary.NativeEndian.Uint16(be[:]),
		Addr:   addr,
	}}
}
