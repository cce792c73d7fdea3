package tun

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writev is writev(2) without the allocations of unix.Writev. It is the only
// unsafe code of the package: the pointer is to a slice that the caller holds
// for the time of the call, and the buffers behind it are Go pointers, which
// the collector follows.
func writev(fd uintptr, iov []unix.Iovec) syscall.Errno {
	_, _, errno := syscall.Syscall(unix.SYS_WRITEV, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return errno
}
