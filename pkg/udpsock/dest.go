package udpsock

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Dest is where datagrams go, in the form that the kernel reads. It is
// immutable; a Sender tells destinations apart by their pointers.
type Dest struct{ sockaddr unix.RawSockaddrInet4 }

// NewDest makes a Dest of an IPv4 address and port.
func NewDest(to netip.AddrPort) (*Dest, error) {
	if !to.Addr().Unmap().Is4() {
		return nil, fmt.Errorf("make UDP destination: %v is not IPv4", to)
	}
	// The port is big-endian whatever the machine's byte order.
	var port [2]byte
	binary.BigEndian.PutUint16(port[:], to.Port())
	return &Dest{unix.RawSockaddrInet4{
		Family: unix.AF_INET,
		Port:   binary.NativeEndian.Uint16(port[:]),
		Addr:   to.Addr().Unmap().As4(),
	}}, nil
}
