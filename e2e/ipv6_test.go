package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

const ipv6Network = "fd00:5::/48"

// familyConfig is a network of the families inside, "4", "6" or "46", with a Backend
// object.
func familyConfig(inside, backend string) string {
	var keys []string
	if strings.Contains(inside, "4") {
		keys = append(keys, fmt.Sprintf(`"Network": %q, "SubnetMax": "10.5.99.0"`, network))
	}
	if strings.Contains(inside, "6") {
		keys = append(keys, fmt.Sprintf(`"IPv6Network": %q`, ipv6Network))
	}
	return fmt.Sprintf(`{%s, "Backend": %s}`, strings.Join(keys, ", "), backend)
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

// A host whose interface has no IPv6 address carries IPv4, and names the reason and
// the remedy; as soon as there is one, it carries both.
func TestFamilyWithoutAnAddress(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "vxlan"}`))
	a := c.dualNode("a")
	a.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "1")
	d := a.join()
	d.says("go on without IPv6")
	s := a.status()
	if problems := strings.Join(s.FamilyProblems, "; "); !s.Ready || !strings.Contains(problems, "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0") {
		t.Errorf("ready %v, problems %q", s.Ready, problems)
	}
	before := a.subnet()
	a.awaitIPv6(false)
	a.Sysctl("net/ipv6/conf/eth0/disable_ipv6", "0")
	a.AddAddr("eth0", a.IPv6Addr())
	a.AddRoute(netip.PrefixFrom(netip.IPv6Unspecified(), 0), netip.MustParseAddr("fd00:77::fe"), "")
	a.awaitIPv6(true)
	if a.subnet() != before {
		t.Errorf("the IPv4 subnet was %v, is %v", before, a.subnet())
	}
	eventually(t, "no problem", func() error {
		if s := a.status(); len(s.FamilyProblems) > 0 || !s.Ready {
			return fmt.Errorf("ready %v, problems %q", s.Ready, s.FamilyProblems)
		}
		return nil
	})
}

// The IPv6 address of a host is renumbered: the lease has the new one, and IPv6 goes
// on. No IPv4 packet is lost meanwhile.
func TestIPv6AddressIsRenumbered(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "vxlan"}`))
	a, b := c.dualNode("a"), c.dualNode("b")
	c.joinPair(a, b)
	for _, n := range []*node{a, b} {
		n.awaitIPv6(true)
		n.AddIPv6("docker0", n.container, n.ipv6Subnet())
	}
	reach := func(what string) {
		t.Helper()
		eventually(t, what, func() error { return ping(t, b.container, a.container.IPv6Addr().Addr()) })
	}
	reach("IPv6 before")
	before := a.ipv6Subnet()
	pings := startPing(t, a, b, "0.01")
	pings.goesOn()
	renumbered := netip.MustParsePrefix("fd00:77::77/64")
	a.AddAddr("eth0", renumbered)
	a.DelAddr("eth0", a.IPv6Addr())
	eventually(t, "the lease has the new address", func() error {
		for key, value := range c.leases() {
			if strings.HasPrefix(key, a.leaseKey()+"&") && strings.Contains(value, `"PublicIPv6":"fd00:77::77"`) {
				return nil
			}
		}
		return fmt.Errorf("the leases are %v", c.leases())
	})
	reach("IPv6 after")
	pings.end()
	if a.ipv6Subnet() != before {
		t.Errorf("the IPv6 subnet was %v, is %v", before, a.ipv6Subnet())
	}
}
