package cli

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
)

// checkForwarding checks whether the kernel passes containers' packets on. It
// drops what arrives at an interface whose own "forwarding" is 0, whatever
// net.ipv4.ip_forward is (IN_DEV_FORWARD in net/ipv4/route.c): systemd-networkd
// and files in sysctl.d set it for one interface.
func checkForwarding(f *facts) finding {
	value, err := sysctl("net.ipv4.ip_forward")
	switch {
	case err != nil:
		return warn("sysctl net.ipv4.ip_forward", "cannot be read: %v", err)
	case value != "1":
		return failed("sysctl -w net.ipv4.ip_forward=1", "is %s: the kernel drops what containers send to other hosts", value)
	}
	var closed, fix []string
	for _, name := range f.forwarders(inet.IPv4) {
		// Slashes in place of dots: sysctl(8) takes both, and flannel.1 has a dot.
		key := "net/ipv4/conf/" + name + "/forwarding"
		if value, err := sysctl(key); err == nil && value == "0" {
			closed, fix = append(closed, name), append(fix, "sysctl -w "+key+"=1")
		}
	}
	if closed != nil {
		return failed(strings.Join(fix, "; "), "is 1, but forwarding is off for %s: the kernel drops containers' packets that arrive there", strings.Join(closed, ", "))
	}
	return okay("is 1")
}

// forwarders returns the interfaces at which packets to be passed on arrive: from
// other hosts at flannel's devices, or with host-gw at the uplink; from containers
// at the interfaces that have an address of the subnet of one of the families.
func (f *facts) forwarders(families ...inet.Family) []string {
	links, err := net.Interfaces()
	if err != nil {
		return nil
	}
	var names []string
	for _, l := range links {
		arrive := netdev.IsFlannel(l.Name) || l.Name == f.uplink.Name && f.config != nil && f.config.BackendType == "host-gw"
		if arrive || slices.ContainsFunc(families, func(family inet.Family) bool { return hasAddrOf(l, f.ownSubnet(family)) }) {
			names = append(names, l.Name)
		}
	}
	return names
}

// hasAddrOf reports whether an interface has an address of a subnet.
func hasAddrOf(l net.Interface, subnet netip.Prefix) bool {
	addrs, err := l.Addrs()
	return err == nil && slices.ContainsFunc(addrs, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && subnet.Contains(p.Addr())
	})
}
