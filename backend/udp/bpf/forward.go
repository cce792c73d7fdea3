package bpf

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
)

// forward turns on forwarding of packets from the device, unless it is on. Without it a
// route look-up for the device fails (BPF_FIB_LKUP_RET_FWD_DISABLED in
// bpf_ipv4_fib_lookup and bpf_ipv6_fib_lookup, net/core/filter.c).
//
// A container that is not privileged has a read-only /proc/sys. There a new device has
// forwarding on if the host forwards (inetdev_init in net/ipv4/devinet.c, ipv6_add_dev in
// net/ipv6/addrconf.c).
func forward(device int, f inet.Family) error {
	i, err := net.InterfaceByIndex(device)
	if err != nil {
		return fmt.Errorf("find interface %d: %w", device, err)
	}
	family := strings.ToLower(f.String())
	path := filepath.Join("/proc/sys/net", family, "conf", i.Name, "forwarding")
	if now, err := os.ReadFile(path); err == nil && bytes.Equal(bytes.TrimSpace(now), []byte("1")) {
		return nil
	}
	if err := os.WriteFile(path, []byte("1"), 0); err != nil {
		return fmt.Errorf("turn on forwarding of %s: %w; turn on that of the host: sysctl -w %s", i.Name, err, hostForwarding[f])
	}
	return nil
}

// hostForwarding are the settings that turn on forwarding of all devices, and of new ones
// (inet_forward_change in net/ipv4/devinet.c, addrconf_fixup_forwarding in
// net/ipv6/addrconf.c).
var hostForwarding = [...]string{inet.IPv4: "net.ipv4.ip_forward=1", inet.IPv6: "net.ipv6.conf.all.forwarding=1"}
