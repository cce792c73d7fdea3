package udpsock

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Dest is a destination of datagrams, in the kernel's form. It is immutable. A
// Sender compares destinations by their pointers. It is for sockets of its family.
type Dest struct {
	family inet.Family
	// v4 or v6 is the destination.
	v4 unix.RawSockaddrInet4
	v6 unix.RawSockaddrInet6
	// source is the local address to send from; invalid: the route's.
	source netip.Addr
}

// NewDest returns the Dest of an address and a port.
func NewDest(to netip.AddrPort) *Dest {
	d := &Dest{family: inet.Of(to.Addr())}
	if d.family == inet.IPv4 {
		d.v4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: swapped(to.Port()), Addr: to.Addr().As4()}
	} else {
		d.v6 = unix.RawSockaddrInet6{Family: unix.AF_INET6, Port: swapped(to.Port()), Addr: to.Addr().As16()}
	}
	return d
}

// From returns the same destination for datagrams from source. If this host does
// not have that address, their sends fail with ENETUNREACH (IPv4,
// ip_route_output_key_hash_rcu in net/ipv4/route.c) or EINVAL (IPv6,
// ip6_datagram_send_ctl in net/ipv6/datagram.c).
func (d *Dest) From(source netip.Addr) *Dest {
	c := *d
	c.source = source
	return &c
}

// Sockaddr returns an address for bind(2), connect(2) and sendto(2).
func Sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// swapped converts a port from or to the kernel's form, which is big-endian on every
// machine.
func swapped(port uint16) uint16 {
	var be [2]byte
	binary.BigEndian.PutUint16(be[:], port)
	return binary.NativeEndian.Uint16(be[:])
}
