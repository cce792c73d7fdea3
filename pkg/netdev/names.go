package netdev

import (
	"fmt"
	"regexp"
	"strings"
)

// Names of the backends' devices. No other package holds a name or a pattern
// of a name.
const (
	// TUNPattern is the udp backend's TUN device. The kernel replaces %d by the
	// first free number (dev_alloc_name in net/core/dev.c).
	TUNPattern = "flannel%d"
	// WireGuard is the wireguard backend's device, WireGuardIPv6 the one for IPv6
	// where each family has its own.
	WireGuard     = "flannel-wg"
	WireGuardIPv6 = "flannel-wg-v6"
)

var (
	tunName   = regexp.MustCompile(`^flannel[0-9]+$`)
	vxlanName = regexp.MustCompile(`^flannel(-v6)?\.[0-9]+$`)
)

// VXLAN returns the name of the vxlan backend's device for a VNI, which carries IPv4.
func VXLAN(vni uint32) string { return fmt.Sprintf("flannel.%d", vni) }

// VXLANIPv6 returns the name of the vxlan backend's device that carries IPv6.
func VXLANIPv6(vni uint32) string { return fmt.Sprintf("flannel-v6.%d", vni) }

// Segmenter returns the names of the veth pair that cuts packets for a TUN device.
func Segmenter(tun string) (in, out string) { return tun + "-seg", tun + "-enc" }

// IsTUN reports whether TUNPattern yields the name.
func IsTUN(name string) bool { return tunName.MatchString(name) }

// IsVXLAN reports whether VXLAN or VXLANIPv6 returns the name for some VNI.
func IsVXLAN(name string) bool { return vxlanName.MatchString(name) }

// IsWireGuard reports whether the name is that of a device of the wireguard backend.
func IsWireGuard(name string) bool { return name == WireGuard || name == WireGuardIPv6 }

// IsBackend reports whether a backend of this program gives the name to its
// device.
func IsBackend(name string) bool { return IsTUN(name) || IsVXLAN(name) || IsWireGuard(name) }

// IsFlannel reports whether the name is that of a device of any generation of
// flannel. It holds for more names than IsBackend, such as flannel.ipip.
func IsFlannel(name string) bool { return strings.HasPrefix(name, "flannel") }
