package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/netnstest"
)

// Hosts that have only link-local IPv6 addresses, and name them, carry both families on
// their link: vxlan and host-gw from one address to the other, the rest in datagrams of
// IPv4.
func TestLinkLocalAddresses(t *testing.T) {
	for backend, published := range map[string]bool{"vxlan": true, "host-gw": true, "udp": false, "wireguard": false} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(familyConfig("46", fmt.Sprintf(`{"Type": %q}`, backend)))
			a, b := c.dualNode("a"), c.dualNode("b")
			for _, n := range []*node{a, b} {
				n.DelAddr(netnstest.Uplink, n.IPv6Addr())
				n.args = append(n.args, "-iface="+n.linkLocal().String())
			}
			c.joinPair(a, b)
			for _, n := range []*node{a, b} {
				n.awaitIPv6(true)
				n.AddIPv6("docker0", n.container, n.ipv6Subnet())
			}
			eventually(t, "IPv6", func() error { return ping(t, a.container, b.container.IPv6Addr().Addr()) })
			for key, value := range c.leases() {
				if strings.Contains(value, `"PublicIPv6":"fe80::`) != published {
					t.Errorf("lease %s is %s, want a link-local address: %v", key, value, published)
				}
			}
		})
	}
}

// linkLocal is the uplink's link-local IPv6 address.
func (n *node) linkLocal() (found netip.Addr) {
	n.t.Helper()
	eventually(n.t, "link-local address of "+n.Name(), func() error {
		link, err := n.Netlink().LinkByName(netnstest.Uplink)
		if err != nil {
			return err
		}
		addrs, err := n.Netlink().AddrList(link, netlink.FAMILY_V6)
		if err != nil {
			return err
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.IsLinkLocalUnicast() {
				found = ip
				return nil
			}
		}
		return fmt.Errorf("the addresses are %v", addrs)
	})
	return found
}
