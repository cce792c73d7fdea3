package pinned

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const noEBPF = "the kernel has no eBPF (CONFIG_BPF_SYSCALL)"

// Explain adds what is missing to an error of bpf(2). User is what needs the programs.
//
// A kernel without CONFIG_BPF_SYSCALL has no such call (ENOSYS, kernel/sys_ni.c). Without
// CAP_PERFMON the verifier forbids arithmetic with pointers (EACCES). Before Linux 5.11
// programs and maps count as locked memory (EPERM, bpf_charge_memlock in
// kernel/bpf/syscall.c), and later against the limit of the cgroup (ENOMEM).
//
// What the library says of the call is left out, but for the verifier's reason.
func Explain(err error, user string) error {
	refusals := []unix.Errno{unix.ENOSYS, unix.ENOMEM, unix.EPERM, unix.EACCES}
	i := slices.IndexFunc(refusals, func(e unix.Errno) bool { return errors.Is(err, e) })
	if i < 0 {
		return err
	}
	var why []string
	switch refusals[i] {
	case unix.ENOSYS:
		why = append([]string{noEBPF}, confinements()...)
	case unix.ENOMEM:
		why = []string{"the programs and maps of " + user + " exceed the memory limit of this container or unit, or the host's memory"}
	default:
		why = append([]string{user + " needs the capabilities CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON, and before Linux 5.11 CAP_SYS_RESOURCE or LimitMEMLOCK=infinity (systemd)"}, confinements()...)
	}
	if refusals[i] != unix.EACCES {
		err = refusals[i]
	}
	return fmt.Errorf("%w; %s", err, strings.Join(why, "; or "))
}

// confinements returns what else may forbid bpf(2) to this process: what confines it is
// known, and not what that forbids.
func confinements() (all []string) {
	// The result of the call is a mode (PR_GET_SECCOMP, prctl(2)).
	if mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err == nil && mode == unix.SECCOMP_MODE_FILTER {
		all = append(all, "the filter of system calls (seccomp) of this container or unit forbids bpf")
	}
	// bpf(2) counts capabilities in the first user namespace alone (bpf_capable in
	// include/linux/capability.h), whose map has all ids (user_namespaces(7)).
	if ids, err := os.ReadFile("/proc/self/uid_map"); err == nil && !slices.Equal(strings.Fields(string(ids)), []string{"0", "0", "4294967295"}) {
		all = append(all, "the capabilities do not count, since this container has a user namespace")
	}
	if enforcing, err := os.ReadFile("/sys/fs/selinux/enforce"); err == nil && string(enforcing) == "1" {
		all = append(all, "SELinux forbids bpf (see: ausearch -m avc)")
	}
	return all
}
