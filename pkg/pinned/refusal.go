package pinned

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

const noEBPF = "the kernel has no eBPF (CONFIG_BPF_SYSCALL)"

// Explain adds what is missing to an error of bpf(2). User is what needs the programs.
//
// A kernel without CONFIG_BPF_SYSCALL has no such call (ENOSYS, kernel/sys_ni.c). Without
// CAP_PERFMON the verifier forbids arithmetic with pointers (EACCES). Before Linux 5.11
// programs and maps count as locked memory (EPERM, bpf_charge_memlock in
// kernel/bpf/syscall.c).
func Explain(err error, user string) error {
	var why string
	switch {
	case errors.Is(err, unix.ENOSYS):
		why = noEBPF
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		why = user + " needs the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON, and before Linux 5.11 CAP_SYS_RESOURCE or LimitMEMLOCK=infinity (systemd)"
	default:
		return err
	}
	if filtered() {
		why += "; or the filter of system calls (seccomp) of this container or unit forbids bpf"
	}
	return fmt.Errorf("%w; %s", err, why)
}

// filtered reports whether a filter of system calls is in force (seccomp(2)). The result
// of the call is a mode (PR_GET_SECCOMP, prctl(2)).
func filtered() bool {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err == nil && mode == unix.SECCOMP_MODE_FILTER
}
