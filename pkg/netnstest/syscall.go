package netnstest

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// RefuseSyscall makes the kernel refuse a system call with an error number, as an older
// kernel or a container's filter does (seccomp(2)). The refusal is for all threads of the
// process and lasts until it ends, so it is for a process of its own.
func RefuseSyscall(number uint32, errno unix.Errno) error {
	const toNumber = 0 // in struct seccomp_data
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: toNumber},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: number, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, failed := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if failed != 0 {
		return fmt.Errorf("set filter of system calls: %w", failed)
	}
	return nil
}
