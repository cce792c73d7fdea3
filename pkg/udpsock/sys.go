package udpsock

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// This file holds the package's unsafe code: pointers between structures of the
// kernel's interface. Every stored pointer is a Go pointer into memory that the
// caller keeps. The collector follows it; heap memory does not move.

// mmsghdr is struct mmsghdr (linux/socket.h).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes received or sent
}

// setDest makes d the message's address.
func (m *mmsghdr) setDest(d *Dest) {
	if d.family == inet.IPv4 {
		m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(&d.v4)), unix.SizeofSockaddrInet4
	} else {
		m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(&d.v6)), unix.SizeofSockaddrInet6
	}
}

// name has room for a sender's address of either family.
type name unix.RawSockaddrInet6

// setName makes the kernel write the sender's address to n.
func (m *mmsghdr) setName(n *name) {
	m.hdr.Name, m.hdr.Namelen = (*byte)(unsafe.Pointer(n)), unix.SizeofSockaddrInet6
}

// v4 returns the address that a socket for IPv4 has received from.
func (n *name) v4() *unix.RawSockaddrInet4 { return (*unix.RawSockaddrInet4)(unsafe.Pointer(n)) }

// The calls below never block, so they skip runtime.entersyscall. That would
// wake the runtime's monitor, which then polls every 20 µs on a processor that
// packets need.

// mmsg runs sendmmsg(2) or recvmmsg(2) without blocking. It returns the number
// of messages.
func mmsg(trap, fd uintptr, msgs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(trap, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendTo runs sendto(2) without blocking, for a message with one buffer.
func sendTo(fd uintptr, h *unix.Msghdr) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(h.Iov.Base)), uintptr(h.Iov.Len),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
	return errno
}

// sendControlLen is the space of a send's control messages: one with a uint16,
// one with a struct in_pktinfo or the longer in6_pktinfo.
var sendControlLen = unix.CmsgSpace(2) + unix.CmsgSpace(unix.SizeofInet6Pktinfo)

// putControl writes the header of a control message with n bytes of data to b.
// It returns where the data go, and the space of the whole message.
func putControl(b []byte, level, kind int32, n int) (data []byte, space int) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b[:unix.CmsgSpace(n)])))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(n))
	return b[unix.CmsgLen(0):unix.CmsgLen(n)], unix.CmsgSpace(n)
}

// putSegmentSize writes the control message UDP_SEGMENT.
func putSegmentSize(b []byte, size uint16) (space int) {
	data, space := putControl(b, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, size)
	return space
}

// putSource writes the control message of the source address: ipi_spec_dst in
// the middle of struct in_pktinfo (ip(7)), or ipi6_addr at the beginning of struct
// in6_pktinfo (ipv6(7)). The interface stays 0: the route selects it.
func putSource(b []byte, source netip.Addr) (space int) {
	if source.Is4() {
		data, space := putControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		clear(data)
		a := source.As4()
		copy(data[4:], a[:])
		return space
	}
	data, space := putControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	clear(data)
	a := source.As16()
	copy(data, a[:])
	return space
}

// eachControl calls f with each well-formed control message in b.
func eachControl(b []byte, f func(level, kind int32, data []byte)) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b)))
		n := int(h.Len)
		if n < unix.CmsgLen(0) || n > len(b) {
			return
		}
		f(h.Level, h.Type, b[unix.CmsgLen(0):n])
		b = b[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(b)):]
	}
}
