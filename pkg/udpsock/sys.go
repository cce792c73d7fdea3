package udpsock

import (
	"encoding/binary"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file holds all unsafe code: what points from one structure of the
// kernel's interface to another. Every pointer stored is a Go pointer into
// memory that the caller keeps, which the collector follows, and which does not
// move as it is on the heap.

// mmsghdr is struct mmsghdr (linux/socket.h).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32 // bytes received or sent
}

// setName points a message at an address.
func (m *mmsghdr) setName(sa *unix.RawSockaddrInet4) {
	m.hdr.Name = (*byte)(unsafe.Pointer(sa))
	m.hdr.Namelen = unix.SizeofSockaddrInet4
}

// mmsg runs sendmmsg(2) or recvmmsg(2) without blocking and returns how many
// messages were handled.
func mmsg(trap, fd uintptr, msgs []mmsghdr) (int, syscall.Errno) {
	n, _, errno := syscall.Syscall6(trap, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(msgs))), uintptr(len(msgs)), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// sendTo runs sendto(2) without blocking, with the address and the only buffer
// of a message.
func sendTo(fd uintptr, h *unix.Msghdr) syscall.Errno {
	_, _, errno := syscall.Syscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(h.Iov.Base)), uintptr(h.Iov.Len),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(h.Name)), uintptr(h.Namelen))
	return errno
}

// segmentControlLen is the space of a control message with a uint16 in it.
var segmentControlLen = unix.CmsgSpace(2)

// putSegmentSize writes the control message that asks for UDP_SEGMENT.
func putSegmentSize(b []byte, size uint16) {
	h := (*unix.Cmsghdr)(unsafe.Pointer(unsafe.SliceData(b[:segmentControlLen])))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], size)
}

// eachControl calls f with every well-formed control message in b.
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
