package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// IPv6 is turned on in a network with running daemons, and off again. Each host keeps
// its IPv4 subnet, and no IPv4 packet between containers is lost.
func TestIPv6IntoARunningNetwork(t *testing.T) {
	for name, test := range map[string]struct {
		backend string
		args    []string
	}{
		"vxlan":          {backend: `{"Type": "vxlan"}`},
		"host-gw":        {backend: `{"Type": "host-gw"}`},
		"udp kernel":     {backend: `{"Type": "udp"}`, args: []string{dataPathFlag + "kernel"}},
		"udp offload":    {backend: `{"Type": "udp"}`, args: []string{dataPathFlag + "offload"}},
		"udp plain":      {backend: `{"Type": "udp"}`, args: []string{dataPathFlag + "plain"}},
		"wireguard":      {backend: `{"Type": "wireguard"}`}, // in user space, where the kernel has none
		"wireguard auto": {backend: `{"Type": "wireguard", "Mode": "auto"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c := newLiveNetwork(t, test.backend, 2, test.args...)
			c.turnIPv6(true)
			c.turnIPv6(false)
			c.end()
		})
	}
}

// Twenty hosts are none the worse for it.
func TestIPv6IntoALargeNetwork(t *testing.T) {
	c := newLiveNetwork(t, `{"Type": "udp"}`, 20, dataPathFlag+"offload")
	for _, on := range []bool{true, false} {
		began := time.Now()
		c.turnIPv6(on)
		t.Logf("IPv6 on %v: all hosts after %v", on, time.Since(began).Round(time.Millisecond))
	}
	c.end()
}

// liveNetwork is a network of IPv4 in which the container of each host pings the next
// host's, without end.
type liveNetwork struct {
	*cluster
	backend string
	nodes   []*node
	subnets []netip.Prefix
	pings   []*restlessPing
}

func newLiveNetwork(t *testing.T, backend string, hosts int, args ...string) *liveNetwork {
	t.Helper()
	c := &liveNetwork{cluster: newCluster(t, "3"), backend: backend}
	c.configure(familyConfig("4", backend))
	for i := range hosts {
		n := c.dualNode(fmt.Sprintf("host%d", i), args...)
		n.join()
		n.addContainer()
		c.nodes, c.subnets = append(c.nodes, n), append(c.subnets, n.subnet())
	}
	for i, from := range c.nodes {
		to := c.nodes[(i+1)%hosts]
		eventually(t, "ping from "+from.Name(), func() error { return ping(t, from.container, to.containerAddr()) })
		c.pings = append(c.pings, startPing(t, from, to, "0.02"))
	}
	c.flow()
	return c
}

// flow waits until all pings are answered.
func (c *liveNetwork) flow() {
	c.t.Helper()
	var answered []int
	for _, p := range c.pings {
		answered = append(answered, p.answers())
	}
	for i, p := range c.pings {
		p.goesOnAfter(answered[i])
	}
}

// turnIPv6 turns IPv6 on or off, and waits until every host has followed. On, the
// containers ping each other by IPv6 as well.
func (c *liveNetwork) turnIPv6(on bool) {
	c.t.Helper()
	inside := "4"
	if on {
		inside = "46"
	}
	c.configure(familyConfig(inside, c.backend))
	for _, n := range c.nodes {
		n.awaitIPv6(on)
		if on {
			n.AddIPv6("docker0", n.container, n.ipv6Subnet())
		}
	}
	if on {
		for i, from := range c.nodes {
			to := c.nodes[(i+1)%len(c.nodes)].container.IPv6Addr().Addr()
			eventually(c.t, "IPv6 from "+from.Name(), func() error { return ping(c.t, from.container, to) })
		}
	}
	c.flow()
}

// end ends the pings. All were answered, and every host has the lease that it had.
func (c *liveNetwork) end() {
	c.t.Helper()
	for _, p := range c.pings {
		p.end()
	}
	var now []netip.Prefix
	for _, n := range c.nodes {
		now = append(now, n.subnet())
	}
	if !slices.Equal(now, c.subnets) {
		c.t.Errorf("the IPv4 subnets were %v, are %v", c.subnets, now)
	}
	for key := range c.leases() {
		if strings.Contains(key, "&") {
			c.t.Errorf("the lease %s has an IPv6 part", key)
		}
	}
}
