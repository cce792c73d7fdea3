package netnstest

import (
	"fmt"
	"strings"

	"github.com/cilium/ebpf/features"
)

// Feature is a part of Linux that some kernels lack.
type Feature struct {
	Name string
	// Given shows that a kernel has the feature: an option of its configuration, such as
	// "CONFIG_NET_VRF", or the first release, such as "Linux 6.11".
	Given string
}

// Features that tests need.
var (
	AccurateECN       = Feature{"accurate ECN", "Linux 7.2"}
	BigTCP            = Feature{"super-packets above 64 KiB", "Linux 5.19"}
	BigTCPOfIPv4      = Feature{"super-packets above 64 KiB of IPv4", "Linux 6.3"}
	Bond              = Feature{"bonds", "CONFIG_BONDING"}
	Bridge            = Feature{"bridges", "CONFIG_BRIDGE"}
	ConntrackTimeouts = Feature{"programs that prolong conntrack entries", "Linux 6.0"}
	FDBFlush          = Feature{"a flush of a VXLAN device's FDB", "Linux 6.7"}
	Flowtable         = Feature{"flowtables of nftables", "CONFIG_NF_FLOW_TABLE"}
	ForcedForwarding  = Feature{"forwarding of IPv6 on one interface", "Linux 6.17"}
	GRE               = Feature{"tunnels of GRE", "CONFIG_NET_IPGRE"}
	IPIP              = Feature{"tunnels of IPIP", "CONFIG_NET_IPIP"}
	IPSet             = Feature{"ipset", "CONFIG_IP_SET"}
	IPVLAN            = Feature{"ipvlan", "CONFIG_IPVLAN"}
	LegacyIPTables    = Feature{"legacy iptables", "CONFIG_IP_NF_FILTER"}
	LegacyMangle      = Feature{"the table mangle of legacy iptables", "CONFIG_IP_NF_MANGLE"}
	MACVLAN           = Feature{"macvlan", "CONFIG_MACVLAN"}
	MixedDecap        = Feature{"unwrapping of packets of the other family", "Linux 6.3"}
	Netkit            = Feature{"netkit devices", "CONFIG_NETKIT"}
	Netem             = Feature{"netem", "CONFIG_NET_SCH_NETEM"}
	SoftwareTrains    = Feature{"trains of UDP_SEGMENT that pass virtual devices whole", "Linux 5.11"}
	TCX               = Feature{"tcx", "CONFIG_NET_XGRESS"}
	UncheckedSegment  = Feature{"UDP_SEGMENT at a device without checksum offload", "Linux 6.11"}
	USO               = Feature{"TUN devices with super-packets of UDP", "Linux 6.2"}
	VethGRO           = Feature{"GRO at a veth pair without XDP", "Linux 5.13"}
	VLAN              = Feature{"VLANs", "CONFIG_VLAN_8021Q"}
	VRF               = Feature{"VRFs", "CONFIG_NET_VRF"}
	WireGuard         = Feature{"WireGuard", "CONFIG_WIREGUARD"}
)

// Logger is the part of [testing.TB] that [Feature.Missing] needs.
type Logger interface {
	Helper()
	Logf(format string, args ...any)
}

// Missing logs that this kernel lacks the feature, and the cause. A run on other kernels
// fails if the line disagrees with the kernel's configuration.
func (f Feature) Missing(t Logger, cause any) {
	t.Helper()
	t.Logf("%s", f.missing(cause))
}

// Skip skips the test, because this kernel lacks the feature. The cause is as for
// Missing.
func (f Feature) Skip(t Skipper, cause any) {
	t.Helper()
	t.Skipf("%s", f.missing(cause))
}

func (f Feature) missing(cause any) string {
	return strings.Join(strings.Fields(fmt.Sprintf("this kernel lacks %s (%s): %v", f.Name, f.Given, cause)), " ")
}

// RequireConntrackTimeouts skips the test if the kernel has no function by which
// programs prolong conntrack entries (bpf_ct_change_timeout).
func RequireConntrackTimeouts(t Skipper) {
	t.Helper()
	const first = 6 << 16 // Linux 6.0
	if v, err := features.LinuxVersionCode(); err == nil && v < first {
		ConntrackTimeouts.Skip(t, fmt.Sprintf("it is Linux %d.%d", v>>16, v>>8&0xff))
	}
}

// LacksUSO reports whether TUN devices of this kernel get the datagrams of a super-packet
// one by one.
func LacksUSO(t Logger) bool {
	t.Helper()
	return USO.lackedBefore(t, 6, 2)
}

// LacksSoftwareTrains reports whether this kernel cuts trains of UDP_SEGMENT before a
// virtual device, such as veth, loopback or VXLAN (NETIF_F_GSO_SOFTWARE in
// linux/netdev_features.h). So the device has super-packets of TCP alone.
func LacksSoftwareTrains(t Logger) bool {
	t.Helper()
	return SoftwareTrains.lackedBefore(t, 5, 11)
}

// lackedBefore reports whether this kernel is older than a release, and logs so.
func (f Feature) lackedBefore(t Logger, major, minor uint32) bool {
	t.Helper()
	v, err := features.LinuxVersionCode()
	lacks := err == nil && v < major<<16|minor<<8
	if lacks {
		f.Missing(t, fmt.Sprintf("it is Linux %d.%d", v>>16, v>>8&0xff))
	}
	return lacks
}
