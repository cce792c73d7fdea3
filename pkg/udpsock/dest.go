package udpsock

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Dest is a destination of datagrams, in the kernel's form. It is immutable. A
// Sender compares destinations by their pointers.
type Dest struct {
	sockaddr unix.RawSockaddrInet4
	// source is the local address to send from; all zero: the route's.
	source [4]byte
}

// NewDest returns the Dest of an IPv4 address and a port.
func NewDest(addr [4]byte, port uint16) *Dest {
	// The port is big-endian on every machine.
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], port)
	return &Dest{sockaddr: unix.RawSockaddrInet4{
		Family: unix.AF_INET,
		Port:   binary.NativeEndian.Uint16(be[:]),
		Addr:   addr,
	}}
}

// port returns the port of an address in the kernel's form.
func port(sa *unix.RawSockaddrInet4) uint16 {
	var be [2]byte
	binary.NativeEndian.PutUint16(be[:], sa.Port)
	return binary.BigEndian.Uint16(be[:])
}

// From returns the same destination for datagrams from source. If this host does
// not have that address, their sends fail with ENETUNREACH
// (ip_route_output_key_hash_rcu, net/ipv4/route.c).
func (d *Dest) From(source [4]byte) *Dest { return &Dest{d.sockaddr, source} }
