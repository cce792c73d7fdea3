package rtnl

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// Messages are laid out as in netlink(7) and rtnetlink(7): a header of 16
// bytes, a fixed part that depends on the type, then attributes; all in the
// host's byte order and padded to 4 bytes.
var native = binary.NativeEndian

// attributes iterates over the attributes behind a fixed part of size bytes.
func attributes(body []byte, size int) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		b := body[min(padded(size), len(body)):]
		for len(b) >= unix.SizeofRtAttr {
			n := int(native.Uint16(b))
			if n < unix.SizeofRtAttr || n > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofRtAttr:n]) {
				return
			}
			b = b[min(padded(n), len(b)):]
		}
	}
}

func padded(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

func appendAttr(b []byte, kind uint16, value ...byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = native.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%unix.NLMSG_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

func appendUint32(b []byte, kind uint16, value uint32) []byte {
	var v [4]byte
	native.PutUint32(v[:], value)
	return appendAttr(b, kind, v[:]...)
}

func appendAddr(b []byte, kind uint16, a netip.Addr) []byte {
	return appendAttr(b, kind, a.AsSlice()...)
}

func addrFamily(a netip.Addr) uint8 { return uint8(inet.Of(a).AF()) }

// unspecified returns the zero address of a family.
func unspecified(family uint8) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func uint32Of(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}
