package vxlan

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestExplain has the errors of the kernel to add a device: to a thread without
// capabilities, and of kernels that know no such device.
func TestExplain(t *testing.T) {
	refusal := make(chan error)
	go func() {
		runtime.LockOSThread() // without an end: the thread ends with the goroutine
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		err := unix.Capset(&header, &none[0])
		if err == nil {
			err = netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.test"}, VxlanId: 1})
		}
		refusal <- err
	}()
	for err, want := range map[error]string{
		<-refusal:       "CAP_NET_ADMIN",
		unix.EOPNOTSUPP: `"modprobe vxlan"`,
		unix.EEXIST:     "Backend.VNI",
		unix.EADDRINUSE: "Backend.Port",
	} {
		if got := explain(err, options{}); !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v: %v, want %q in it", err, got, want)
		}
	}
}
