package fastpath

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Each thing that the kernel may lack for functions of connection tracking has words.
func TestWhyNotSupported(t *testing.T) {
	_, noTypes := os.Stat("/sys/kernel/btf/vmlinux")
	for _, test := range []struct {
		modules error
		slow    bool
		want    string
	}{
		{modules: unix.EPROTONOSUPPORT, want: "modprobe -a nf_conntrack nf_conntrack_netlink"},
		{slow: true, want: "sysctl -w net.core.bpf_jit_enable=1"},
		{want: "Linux 6.0 or newer, and CONFIG_DEBUG_INFO_BTF_MODULES"},
	} {
		if test.modules == nil && errors.Is(noTypes, os.ErrNotExist) {
			test.want = "CONFIG_DEBUG_INFO_BTF,"
		}
		err := whyNotSupported(test.modules, func() (bool, error) { return test.slow, nil })
		if !strings.Contains(err.Error(), lacks) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: %v, want %q in it", test, err, test.want)
		}
	}
}
