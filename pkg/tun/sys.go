package tun

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// This file holds all unsafe code of the package: the pointers are to slices that
// the caller holds for the time of the call, and the buffers behind them are Go
// pointers, which the collector follows.
//
// The calls never wait, so the scheduler need not know of them: to tell it wakes
// up the runtime's monitor where that sleeps (runtime.entersyscall), which then
// looks every 20 µs, on a processor that a packet needs.

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
