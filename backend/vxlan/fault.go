package vxlan

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Before Linux 5.8, address translation "updated" the UDP checksum of a VXLAN
// datagram that has none, with the device's checksum offload on; the receiver
// dropped it (commit ea64d8d6c675, "netfilter: nat: never update the UDP
// checksum when it's 0"). The fault shows only in packets that are translated,
// so the kernel's release is what can be probed. Where a distribution has
// carried the correction back, the workaround costs speed and nothing else.
const (
	mendedMajor = 5
	mendedMinor = 8
)

// checksumFault reports whether the running kernel is affected.
func checksumFault() (bool, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return faultyRelease(unix.ByteSliceToString(name.Release[:])), nil
}

// faultyRelease judges a release such as "5.4.0-150-generic". One that it
// cannot read is taken for a new one.
func faultyRelease(release string) bool {
	var major, minor int
	if n, _ := fmt.Sscanf(release, "%d.%d", &major, &minor); n < 2 {
		return false
	}
	return major < mendedMajor || major == mendedMajor && minor < mendedMinor
}
