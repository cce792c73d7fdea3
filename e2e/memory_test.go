package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// The eBPF maps may need more locked memory than the limit that a program gets.
// flannel raises it. Without CAP_SYS_RESOURCE it cannot, and before Linux 5.11, which
// counts maps against the limit, the status names the capability.
func TestLockedMemory(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	for _, test := range []struct {
		wrapper []string
		lacks   string // may be the reason against the kernel data path
	}{
		{nil, ""},
		{[]string{"setpriv", "--bounding-set=-sys_resource"}, "CAP_SYS_RESOURCE"},
	} {
		args := append([]string{"--memlock=65536:65536"}, test.wrapper...)
		d := launchCommand(t, a.Host, "prlimit", append(append(args, programs.flannel), a.args...)...)
		d.ready()
		eventually(t, "the data path is the kernel's, or the reason is named", func() error {
			s := a.status().Backend
			if s.DataPath == "kernel" || test.lacks != "" && strings.Contains(s.DataPathReason, test.lacks) {
				return nil
			}
			return fmt.Errorf("with %v it is %s: %s", test.wrapper, s.DataPath, s.DataPathReason)
		})
		d.stop()
	}
}
