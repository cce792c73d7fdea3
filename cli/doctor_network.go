package cli

import (
	"fmt"
	"slices"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/hostroute"
)

// checkNetwork compares Network with the networks that this host has beside the
// overlay. The daemon itself finds which peers a route of these concerns.
func checkNetwork(f *facts) finding {
	if f.config == nil || !f.config.Enabled() {
		return finding{} // checkStore reports it, or the network is of IPv6 alone
	}
	network := f.config.Network
	have, err := hostroute.Networks(network)
	if err != nil {
		return warn("sudo flannel doctor", "the host's own networks cannot be read: %v", err)
	}
	if err := all.CheckHost(f.config.BackendType, network, have); err != nil {
		return failed(fmt.Sprintf("flannel config set, with another Network; or another range for that interface (ip route show %v)", network), "%v", err)
	}
	never, last := hostroute.Unusable(have, network, f.config.SubnetLen, f.uplink.Name)
	inside := slices.DeleteFunc(append(never, last...), func(n hostroute.Network) bool {
		return f.report != nil && f.report.Lease != nil && f.report.Lease.Subnet.Contains(n.Prefix.Addr()) && f.report.Lease.Subnet.Bits() <= n.Prefix.Bits()
	})
	if len(inside) > 0 {
		return warn("choose another Network, or another range for them (Docker: default-address-pools in daemon.json); SubnetMin and SubnetMax leave out a part of Network",
			"%v contains networks that this host has already, and a peer whose subnet lies in one cannot be reached: %s", network, firstNames(inside))
	}
	return okay("%v overlaps no other network of this host", network)
}
