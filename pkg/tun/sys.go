package tun

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file holds the package's unsafe code. The pointers are to slices that the
// caller holds during the call. The buffers behind them are Go pointers, which
// the collector follows.
//
// The calls never block, so they skip runtime.entersyscall. That would wake the
// runtime's monitor, which then polls every 20 µs on a processor that packets
// need.

// writev is writev(2) without the allocations of unix.Writev.
func writev(fd uintptr, iov []unix.Iovec) syscall.Errno {
	_, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, fd,
		uintptr(unsafe.Pointer(unsafe.SliceData(iov))), uintptr(len(iov)))
	return errno
}

// read is read(2).
func read(fd uintptr, b []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return int(n), errno
}
