package bpf

import (
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// TestForwardReadOnly runs itself again with a read-only /proc/sys, as a container has that
// is not privileged. A host that forwards needs no write there. On another one the error
// has the setting.
func TestForwardReadOnly(t *testing.T) {
	const marker = "FLANNEL_TEST_READ_ONLY"
	if os.Getenv(marker) != "" {
		for name, on := range map[string]bool{"new": true, "off": false} {
			i, err := net.InterfaceByName(name)
			if err != nil {
				t.Fatal(err)
			}
			for f, remedy := range map[inet.Family]string{inet.IPv4: "sysctl -w net.ipv4.ip_forward=1", inet.IPv6: "sysctl -w net.ipv6.conf.all.forwarding=1"} {
				err := forward(i.Index, f)
				if on && err != nil {
					t.Errorf("%s forwards %v: %v", name, f, err)
				}
				if !on && (err == nil || !strings.Contains(err.Error(), unix.EROFS.Error()) || !strings.Contains(err.Error(), remedy)) {
					t.Errorf("%s does not forward %v: error %v, want %q in it", name, f, err, remedy)
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
	h := netnstest.New(t).Host("a")
	h.Sysctl("net.ipv4.ip_forward", "1")
	h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	run(t, h, "ip", "link", "add", "new", "type", "veth", "peer", "name", "off")
	h.Sysctl("net.ipv4.conf.off.forwarding", "0")
	h.Sysctl("net.ipv6.conf.off.forwarding", "0")
	c := h.Command(t.Context(), "unshare", "-m", "sh", "-ec",
		`mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; exec "$0" -test.run '^TestForwardReadOnly$'`, self)
	c.Env = append(os.Environ(), marker+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
