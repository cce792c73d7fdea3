package xtables

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// getsockopt reads an option whose buffer is also the request. x/sys has no such
// call.
func getsockopt(fd, option int, buffer []byte) error {
	size := uint32(len(buffer))
	// The only unsafe code of the package: both pointers outlive the call.
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_IP, uintptr(option),
		uintptr(unsafe.Pointer(unsafe.SliceData(buffer))), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
