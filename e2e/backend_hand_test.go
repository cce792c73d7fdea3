package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// handSubnet is the subnet of a host without the program.
var handSubnet = netip.MustParsePrefix("10.5.200.0/24")

// byHand makes a host with a container and a lease with the host's address in
// value. The host has no daemon: the test sets up the rest from the protocol's
// description.
func (c *cluster) byHand(name, value string) *node {
	c.t.Helper()
	n := &node{Host: c.lab.Host(name), t: c.t, envFile: filepath.Join(c.t.TempDir(), "subnet.env")}
	gateway := netip.PrefixFrom(handSubnet.Addr().Next(), handSubnet.Bits())
	env := fmt.Sprintf("FLANNEL_SUBNET=%v\nFLANNEL_MTU=1420\n", gateway)
	if err := os.WriteFile(n.envFile, []byte(env), 0o644); err != nil {
		c.t.Fatal(err)
	}
	n.addContainer()
	c.keys.put(c.t, "subnets/10.5.200.0-24", fmt.Sprintf(value, n.Addr().Addr()), 0)
	return n
}

// run runs a command of ip(8) or bridge(8) on the node.
func (n *node) run(words ...string) {
	n.t.Helper()
	if out, err := output(n.t, n.Host, words[0], words[1:]...); err != nil {
		n.t.Fatalf("%v: %v\n%s", words, err, out)
	}
}
