package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const ipv6Network = "fd00:5::/48"

// dualConfig is a network of both families with a Backend object.
func dualConfig(backend string) string {
	return fmt.Sprintf(`{"Network": %q, "SubnetMax": "10.5.99.0", "IPv6Network": %q, "Backend": %s}`, network, ipv6Network, backend)
}

// dualNode makes a node with an address of each family.
func (c *cluster) dualNode(name string, args ...string) *node {
	c.t.Helper()
	return c.nodeOn(c.lab.DualHost(name), args...)
}

// ipv6Subnet is the network of FLANNEL_IPV6_SUBNET; it is invalid without.
func (n *node) ipv6Subnet() netip.Prefix {
	n.t.Helper()
	text := n.env()["FLANNEL_IPV6_SUBNET"]
	if text == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		n.t.Fatal(err)
	}
	return p.Masked()
}

// awaitIPv6 waits until subnet.env has an IPv6 subnet, or has none.
func (n *node) awaitIPv6(has bool) {
	n.t.Helper()
	eventually(n.t, "IPv6 subnet of "+n.Name(), func() error {
		if p := n.ipv6Subnet(); p.IsValid() != has {
			return fmt.Errorf("subnet.env has %v, want one: %v", p, has)
		}
		return nil
	})
}

// ipv6ContainerAddr is the address that AddIPv6 gives to the node's container.
func (n *node) ipv6ContainerAddr() netip.Addr { return n.ipv6Subnet().Addr().Next().Next() }

// IPv6 is turned on in a network with running daemons, and off again. Each host
// keeps its IPv4 subnet, and no IPv4 packet between containers is lost.
func TestIPv6IntoARunningNetwork(t *testing.T) {
	for name, backend := range map[string]string{
		"vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`, "wireguard": `{"Type": "wireguard"}`,
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, "3")
			before := strings.Replace(dualConfig(backend), fmt.Sprintf(`"IPv6Network": %q, `, ipv6Network), "", 1)
			c.configure(before)
			a, b := c.dualNode("a"), c.dualNode("b")
			c.joinPair(a, b)
			subnets := [2]netip.Prefix{a.subnet(), b.subnet()}

			pings := startRestlessPing(t, a, b)
			pings.goesOn()
			c.configure(dualConfig(backend))
			a.awaitIPv6(true)
			b.awaitIPv6(true)
			for _, n := range []*node{a, b} {
				n.AddIPv6("docker0", n.container, n.ipv6Subnet())
			}
			for _, way := range [][2]*node{{a, b}, {b, a}} {
				eventually(t, "IPv6 from "+way[0].Name(), func() error {
					return ping(t, way[0].container, way[1].ipv6ContainerAddr())
				})
			}
			c.configure(before)
			a.awaitIPv6(false)
			b.awaitIPv6(false)
			pings.end()
			if now := [2]netip.Prefix{a.subnet(), b.subnet()}; now != subnets {
				t.Errorf("the IPv4 subnets were %v, are %v", subnets, now)
			}
			for key := range c.leases() {
				if strings.Contains(key, "&") {
					t.Errorf("the lease %s has an IPv6 part", key)
				}
			}
		})
	}
}
