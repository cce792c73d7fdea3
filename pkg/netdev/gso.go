package netdev

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// LegacyGSO is the size of the largest super-packet that each kernel and device takes
// (GSO_LEGACY_MAX_SIZE, include/linux/netdevice.h). Larger ones are BIG TCP.
const LegacyGSO = 65536

// GSOLimit is the size of the largest super-packet that senders may give to a device.
// What is larger is cut to segments before the device gets it.
type GSOLimit struct {
	Device string
	// Bridge is the bridge whose port the device is; "" if it is none.
	Bridge string
	Size   int
}

// GSOLimits returns the limits of the devices in the network namespace of the calling
// thread. Kernels without BIG TCP have LegacyGSO.
func GSOLimits() ([]GSOLimit, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	names := make(map[int]string)
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var all []GSOLimit
	for _, l := range links {
		a := l.Attrs()
		size := int(max(a.GSOMaxSize, a.GSOIPv4MaxSize, LegacyGSO))
		all = append(all, GSOLimit{Device: a.Name, Bridge: names[a.MasterIndex], Size: size})
	}
	return all, nil
}
