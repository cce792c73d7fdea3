package bpf

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// TestProbeRefused runs itself again where the kernel refuses bpf(2): with a kernel that
// has no such call, with a container's filter of system calls, and in a user namespace.
func TestProbeRefused(t *testing.T) {
	const marker = "FLANNEL_TEST_REFUSED"
	tests := map[string]struct {
		refusal unix.Errno // of a filter
		command []string   // to run the test by
		want    []string
	}{
		"no eBPF":        {refusal: unix.ENOSYS, want: []string{"the kernel has no eBPF (CONFIG_BPF_SYSCALL)"}},
		"memory limit":   {refusal: unix.ENOMEM, want: []string{"the programs and maps of the kernel path exceed the memory limit of this container or unit"}},
		"filter":         {refusal: unix.EPERM, want: []string{"CAP_BPF", "the filter of system calls (seccomp) of this container or unit forbids bpf"}},
		"user namespace": {command: []string{"unshare", "-U", "-r"}, want: []string{"CAP_BPF", "the capabilities do not count, since this container has a user namespace"}},
	}
	if test, inside := tests[os.Getenv(marker)]; inside {
		if test.refusal != 0 {
			if err := netnstest.RefuseSyscall(unix.SYS_BPF, test.refusal); err != nil {
				t.Fatal(err)
			}
		}
		for what, f := range map[string]func() error{
			"Probe":        func() error { _, err := Probe(); return err },
			"UnwrapsMixed": func() error { _, err := UnwrapsMixed(); return err },
		} {
			err := f()
			if err != nil && (strings.Contains(err.Error(), "rlimit") || strings.Contains(err.Error(), "detect support")) {
				t.Errorf("%s = %v, which has words of the library", what, err)
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s = %v, want %q in it", what, err, want)
				}
			}
		}
		return
	}
	netnstest.Require(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range tests {
		command := append(test.command, self, "-test.run=^TestProbeRefused$")
		c := exec.CommandContext(t.Context(), command[0], command[1:]...)
		c.Env = append(os.Environ(), marker+"="+name)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}
