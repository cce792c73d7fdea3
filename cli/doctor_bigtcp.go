package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
)

// checkBigTCP checks whether containers' interfaces take larger super-packets than
// flannel's device (BIG TCP). The kernel cuts these before the device gets them, and
// passes each segment through the tunnel alone: 5 to 6 times slower than super-packets
// of the usual size.
func checkBigTCP(f *facts) finding {
	limits, err := netdev.GSOLimits()
	if err != nil {
		return warn("ip -d link show", "the sizes of super-packets cannot be read: %v", err)
	}
	var device netdev.GSOLimit
	var inside []string // containers' interfaces, and bridges
	for _, name := range f.forwarders(inet.Families[:]...) {
		i := slices.IndexFunc(limits, func(l netdev.GSOLimit) bool { return l.Device == name })
		switch {
		case i < 0:
		case !netdev.IsFlannel(name):
			inside = append(inside, name)
		case device.Device == "" || limits[i].Size < device.Size:
			device = limits[i]
		}
	}
	if device.Device == "" {
		return finding{} // no tunnel
	}
	var large, fix []string
	for _, l := range limits {
		if l.Size > device.Size && (slices.Contains(inside, l.Device) || slices.Contains(inside, l.Bridge)) {
			large = append(large, fmt.Sprintf("%s (%d bytes)", l.Device, l.Size))
			// Up to LegacyGSO this sets the size for IPv4, too (netif_set_gso_max_size,
			// net/core/dev.c).
			fix = append(fix, fmt.Sprintf("ip link set %s gso_max_size %d", l.Device, netdev.LegacyGSO))
		}
	}
	if large == nil {
		return finding{}
	}
	return warn(strings.Join(fix, "; ")+", and the same in the containers",
		"%s takes super-packets of %d bytes, and containers send larger ones at %s (BIG TCP): the kernel cuts these to frames, which costs throughput",
		device.Device, device.Size, strings.Join(large, ", "))
}
