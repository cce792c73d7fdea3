package vxlan

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// checksumFault reports whether the running kernel corrupts checksums of packets
// in VXLAN. Before Linux 5.8, address translation "updated" the UDP checksum of a
// VXLAN datagram without one if the device's checksum offload was on. The receiver
// dropped the datagram. Linux 5.8 has the correction (commit ea64d8d6c675,
// "netfilter: nat: never update the UDP checksum when it's 0"). Only translated
// packets show the fault, so the release is probed. If a distribution has
// backported the correction, the workaround costs speed only.
func checksumFault() (bool, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, fmt.Errorf("read the kernel's release: %w", err)
	}
	return faultyRelease(unix.ByteSliceToString(name.Release[:])), nil
}

// faultyRelease reports whether a release such as "5.4.0-150-generic" has the
// fault. A release that it cannot parse has not.
func faultyRelease(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major < 5 || major == 5 && minor < 8
}
