package cli

import (
	"net"
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
	return checkIPv6Forwarding(f, up)
}

// checkIPv6Forwarding checks whether the kernel passes containers' IPv6 packets on. It
// does for all interfaces, or for those with force_forwarding (ip6_forward in
// net/ipv6/ip6_output.c, from Linux 6.17 on).
func checkIPv6Forwarding(f *facts, up uplink.Uplink) finding {
	const all = "net.ipv6.conf.all.forwarding"
	value, err := sysctl(all)
	if err != nil {
		return failed("start the kernel without ipv6.disable=1", "the kernel has no IPv6: %v", err)
	}
	conf := "net/ipv6/conf/" + up.Name
	keepRoute := "sysctl -w " + conf + "/accept_ra=2"
	state := "forwarding is on"
	if value != "1" {
		forced, closed := f.forcedForwarding(up.Name)
		switch {
		case forced != nil && closed == nil:
			state = "forwarding is forced for " + strings.Join(forced, ", ")
		case forced != nil:
			var fix []string
			for _, name := range closed {
				fix = append(fix, "sysctl -w net/ipv6/conf/"+name+"/force_forwarding=1")
			}
			return failed(strings.Join(fix, "; "), "%s is %s and force_forwarding is off for %s: the kernel drops containers' packets that arrive there", all, value, strings.Join(closed, ", "))
		case advertised():
			return failed(keepRoute+"; sysctl -w "+all+"=1",
				"%s is %s: the kernel drops what containers send to other hosts; the default route of %s is from router advertisements, which accept_ra=2 keeps", all, value, up.Name)
		default:
			return failed("sysctl -w "+all+"=1", "%s is %s: the kernel drops what containers send to other hosts", all, value)
		}
	}
	// An interface with "forwarding" ignores router advertisements, unless accept_ra is 2
	// (ipv6_accept_ra in include/net/ipv6.h): a default route of theirs expires.
	own, _ := sysctl(conf + "/forwarding")
	if acceptRA, _ := sysctl(conf + "/accept_ra"); own == "1" && acceptRA != "2" && advertised() {
		return warn(keepRoute, "the default route is from router advertisements, and %s ignores them since it forwards: the route will expire", up.Name)
	}
	return okay("%s, %v, MTU %d (%s); %s", up.Name, up.Addr, up.MTU, up.Reason, state)
}

// forcedForwarding returns the interfaces at which IPv6 packets to be passed on arrive,
// by their force_forwarding: from other hosts at flannel's devices, or with host-gw at
// the uplink; from containers at the interfaces that have an address of the subnet.
func (f *facts) forcedForwarding(uplink string) (forced, closed []string) {
	links, err := net.Interfaces()
	if err != nil || f.report == nil || f.report.Lease == nil {
		return nil, nil
	}
	for _, l := range links {
		routes := l.Name == uplink && f.config != nil && f.config.BackendType == "host-gw"
		if !routes && !hasAddrOf(l, f.report.Lease.IPv6Subnet) { // flannel's devices have one, too
			continue
		}
		if value, err := sysctl("net/ipv6/conf/" + l.Name + "/force_forwarding"); err == nil && value == "1" {
			forced = append(forced, l.Name)
		} else {
			closed = append(closed, l.Name)
		}
	}
	return forced, closed
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
