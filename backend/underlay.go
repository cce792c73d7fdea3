package backend

import (
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
)

// CheckUnderlay returns an error if network, which the backend will route into its
// device or to its containers, contains this host's address for other hosts: what
// the hosts send each other, and to the store, would take that way. what names
// it in the error.
func (c Config) CheckUnderlay(what string, network netip.Prefix) error {
	s := c.Of(inet.Of(network.Addr()))
	for _, a := range []netip.Addr{s.Uplink.Addr, s.PublicIP} {
		if network.Contains(a) {
			return fmt.Errorf("check %s %v: it contains %v, this host's address for other hosts (interface %s); choose a Network, or SubnetMin and SubnetMax, that the hosts' own addresses lie outside of", what, network, a, s.Uplink.Name)
		}
	}
	return nil
}
