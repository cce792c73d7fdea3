// Package inet has the address families of the Internet Protocol, as a parameter
// for code that treats both alike.
package inet

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Family is an address family. The zero Family is IPv4.
type Family uint8

// The families, in the order in which both are listed.
const (
	IPv4 Family = iota
	IPv6
)

// Families are all families, in order.
var Families = [...]Family{IPv4, IPv6}

// Of returns the family of an address. An IPv4-mapped IPv6 address belongs to IPv6.
func Of(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// Other returns the other family.
func (f Family) Other() Family { return IPv6 - f }

// Bits returns the length of an address in bits.
func (f Family) Bits() int {
	if f == IPv4 {
		return 32
	}
	return 128
}

// AF returns the kernel's number of the family (address_families(7)).
func (f Family) AF() int {
	if f == IPv4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// MinMTU is the smallest MTU, in bytes, of a link that carries the family (RFC
// 791, section 3.2; RFC 8200, section 5).
func (f Family) MinMTU() int {
	if f == IPv4 {
		return 68
	}
	return 1280
}

// Unspecified returns the address of only zeros.
func (f Family) Unspecified() netip.Addr {
	if f == IPv4 {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// String returns the family's name.
func (f Family) String() string {
	if f == IPv4 {
		return "IPv4"
	}
	return "IPv6"
}
