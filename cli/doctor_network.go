package cli

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
)

// checkNetwork compares the networks of both families with those that this host has
// beside the overlay. The daemon itself finds which peers a route of these concerns.
func checkNetwork(f *facts) finding {
	if f.config == nil {
		return finding{} // checkStore reports it
	}
	var clear []string
	for _, family := range f.config.Families() {
		if found := checkNetworkOf(f, family); found.Verdict != "" {
			return found
		}
		clear = append(clear, f.config.RangeOf(family).Network.String())
	}
	return okay("%s overlaps no other network of this host", strings.Join(clear, " and "))
}

// checkNetworkOf returns what is wrong with the network of a family; no verdict if
// nothing is.
func checkNetworkOf(f *facts, family inet.Family) finding {
	r, prefix := f.config.RangeOf(family), ""
	if family == inet.IPv6 {
		prefix = "IPv6"
	}
	have, err := hostroute.Networks(r.Network)
	if err != nil {
		return warn("sudo flannel doctor", "the host's own networks cannot be read: %v", err)
	}
	if err := all.CheckHost(f.config.BackendType, r.Network, have); err != nil {
		return failed(fmt.Sprintf("flannel config set, with another %sNetwork; or another range for that interface (ip route show %v)", prefix, r.Network), "%v", err)
	}
	own := f.ownSubnet(family)
	never, last := hostroute.Unusable(have, r.Network, r.SubnetLen, f.uplink.Name)
	inside := slices.DeleteFunc(append(never, last...), func(n hostroute.Network) bool {
		return own.Contains(n.Prefix.Addr()) && own.Bits() <= n.Prefix.Bits()
	})
	if len(inside) > 0 {
		return warn(fmt.Sprintf("choose another %[1]sNetwork, or another range for them (Docker: default-address-pools in daemon.json); %[1]sSubnetMin and %[1]sSubnetMax leave out a part of %[1]sNetwork", prefix),
			"%v contains networks that this host has already, and a peer whose subnet lies in one cannot be reached: %s", r.Network, firstNames(inside))
	}
	return finding{}
}

// ownSubnet returns the subnet of a family that the daemon reports; it is invalid
// without.
func (f *facts) ownSubnet(family inet.Family) netip.Prefix {
	switch {
	case f.report == nil || f.report.Lease == nil:
		return netip.Prefix{}
	case family == inet.IPv6:
		return f.report.Lease.IPv6Subnet
	}
	return f.report.Lease.Subnet
}
