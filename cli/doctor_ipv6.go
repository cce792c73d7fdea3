package cli

import (
	"os"
	"strconv"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
)

// checkIPv6 checks what a host needs for the IPv6 part of the network. Without such a
// part it checks nothing.
func checkIPv6(f *facts) finding {
	carried := f.config != nil && f.config.IPv6.Enabled() || f.report != nil && f.report.Lease != nil && f.report.Lease.IPv6Subnet.IsValid()
	if !carried {
		return finding{}
	}
	if f.report != nil && len(f.report.FamilyProblems) > 0 {
		return warn("see the reason", "%s", strings.Join(f.report.FamilyProblems, "; "))
	}
	up, err := uplink.Find(f.flags.uplink.Of(inet.IPv6))
	if err != nil {
		return warn("ip -6 addr; ip -6 route", "no interface to other hosts by IPv6: %v", err)
	}
	forwarding, err := sysctl("net.ipv6.conf.all.forwarding")
	if err != nil {
		return failed("start the kernel without ipv6.disable=1", "the kernel has no IPv6: %v", err)
	}
	// An interface that forwards ignores router advertisements, unless accept_ra is 2
	// (Documentation/networking/ip-sysctl.rst): a default route of theirs expires.
	key := "net/ipv6/conf/" + up.Name + "/accept_ra"
	acceptRA, _ := sysctl(key)
	keepRoute := "sysctl -w " + key + "=2"
	switch {
	case forwarding != "1" && advertised():
		return failed(keepRoute+"; sysctl -w net.ipv6.conf.all.forwarding=1",
			"net.ipv6.conf.all.forwarding is %s: the kernel drops what containers send to other hosts; the default route of %s is from router advertisements, which accept_ra=2 keeps", forwarding, up.Name)
	case forwarding != "1":
		return failed("sysctl -w net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.all.forwarding is %s: the kernel drops what containers send to other hosts", forwarding)
	case acceptRA != "2" && advertised():
		return warn(keepRoute, "the default route is from router advertisements, and %s ignores them since it forwards: the route will expire", up.Name)
	}
	return okay("%s, %v, MTU %d (%s); forwarding is on", up.Name, up.Addr, up.MTU, up.Reason)
}

// advertised reports whether a default route is from a router advertisement: it has
// the flags RTF_DEFAULT and RTF_ADDRCONF (linux/ipv6_route.h).
func advertised() bool {
	const fromRA = 0x00010000 | 0x00040000
	routes, err := os.ReadFile("/proc/net/ipv6_route")
	if err != nil {
		return false
	}
	for _, line := range strings.Split(string(routes), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 9 || fields[1] != "00" {
			continue
		}
		flags, err := strconv.ParseUint(fields[8], 16, 32)
		if err == nil && flags&fromRA == fromRA {
			return true
		}
	}
	return false
}
