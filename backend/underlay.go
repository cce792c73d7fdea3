package backend

import (
	"fmt"
	"net/netip"
)

// CheckUnderlay returns an error if network, which the backend will route into its
// device or to its containers, contains this host's address for other hosts: what
// the hosts send each other, and to the store, would take that way. what names
// it in the error.
func (c Config) CheckUnderlay(what string, network netip.Prefix) error {
	for _, a := range []netip.Addr{c.Uplink.Addr, c.PublicIP} {
		if network.Contains(a) {
			return fmt.Errorf("check %s %v: it contains %v, this host's address for other hosts (interface %s); choose a Network, or SubnetMin and SubnetMax, that the hosts' own addresses lie outside of", what, network, a, c.Uplink.Name)
		}
	}
	return nil
}
