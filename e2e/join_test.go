package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// identity is the part of a lease that distinguishes hosts with one address.
var identity = regexp.MustCompile(`,"NodeID":"[0-9a-f]{32}","Hostname":"[^"]+"|,"OffloadPort":8287`)

func TestTwoHosts(t *testing.T) {
	for _, test := range []struct{ api, dataPath, value string }{
		{"3", "offload", `{"PublicIP":"%v","PublicIPv6":null}`},
		{"2", "plain", `{"PublicIP":"%v"}`},
		// Our own fields follow those of other generations. The test removes
		// the host's identity below.
		{"3", "kernel", `{"PublicIP":"%v","PublicIPv6":null,"DataPath":"kernel"}`},
		{"2", "kernel", `{"PublicIP":"%v","DataPath":"kernel"}`},
	} {
		t.Run("api"+test.api+" "+test.dataPath, func(t *testing.T) {
			c := newCluster(t, test.api)
			a, b := c.node("a", dataPathFlag+test.dataPath), c.node("b", dataPathFlag+test.dataPath)
			c.joinPair(a, b)

			want := make(map[string]string)
			for _, n := range []*node{a, b} {
				want[n.leaseKey()] = fmt.Sprintf(test.value, n.Addr().Addr())
				if !network.Contains(n.subnet().Addr()) || n.subnet().Bits() != 24 {
					t.Errorf("host %s has the subnet %v, want a /24 of %v", n.Name(), n.subnet(), network)
				}
			}
			eventually(t, "the leases are as they should be", func() error {
				if got := c.leases(); identity.ReplaceAllString(fmt.Sprint(got), "") != fmt.Sprint(want) {
					return fmt.Errorf("in etcd:\n%v\nwant\n%v", got, want)
				}
				return nil
			})
		})
	}
}

func TestThirdHostJoins(t *testing.T) {
	c := newCluster(t, "3")
	a, b, _, _ := c.pair()
	third := c.node("c")
	third.join()
	third.addContainer()
	for _, n := range []*node{a, b} {
		c.awaitPair(third, n)
	}
	seen := map[netip.Prefix]bool{a.subnet(): true, b.subnet(): true, third.subnet(): true}
	if len(seen) != 3 {
		t.Errorf("three hosts have the subnets %v", seen)
	}
}

// The device as the contract has it: flannel0 with the subnet's own address
// alone, and one route for the whole network.
func TestDevice(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	a.join()
	for _, want := range []struct{ command, line string }{
		{"ip -4 -brief address show dev flannel0", a.subnet().Addr().String() + "/32"},
		{"ip -4 route show " + network.String(), "dev flannel0"},
		{"ip link show dev flannel0", fmt.Sprintf("mtu %d", a.mtu())},
	} {
		words := strings.Fields(want.command)
		if out, err := output(t, a.Host, words[0], words[1:]...); err != nil || !strings.Contains(out, want.line) {
			t.Errorf("%s says %q, %v; want %q in it", want.command, out, err, want.line)
		}
	}
}

// The quick start: the first host brings the etcd, the second uses it.
func TestEmbeddedEtcd(t *testing.T) {
	netnstest.Require(t)
	t.Parallel()
	lab := netnstest.New(t)
	c := &cluster{t: t, lab: lab}
	first := lab.Host("a")
	endpoint := first.Addr().Addr().String() + ":2379"
	a := newNode(t, first, "", "-etcd-embed", "-etcd-embed-listen="+endpoint, "-network="+network.String())
	b := newNode(t, lab.Host("b"), "http://"+endpoint)

	da := a.join()
	b.join()
	a.addContainer()
	b.addContainer()
	c.awaitPair(a, b)

	// Configuration and leases are on the disk, so a restart finds them.
	before := a.subnet()
	da.stop()
	// A -network that differs from the stored one changes nothing, and the log
	// reports it.
	a.args = append(a.args, "-network=10.6.0.0/16")
	da = a.join()
	da.says("ignore -network network=10.6.0.0/16")
	if after := a.subnet(); after != before {
		t.Errorf("after a restart the subnet is %v, was %v", after, before)
	}
	c.awaitPair(a, b)
}

// A -network that cannot work is refused before it reaches the store. So the
// next start with a good one succeeds.
func TestPublishRefused(t *testing.T) {
	netnstest.Require(t)
	t.Parallel()
	a := newNode(t, netnstest.New(t).Host("a"), "", "-etcd-embed")
	for wrong, want := range map[string]string{
		`{"Network": "10.6.0.0/16", "Backend": {"Type": "pigeon"}}`:            `-network: Backend.Type "pigeon" is not known`,
		`{"Network": "10.6.0.0/16", "Backend": {"Type": "udp", "Port": "x"}}`:  `-network: Backend.Port "x" must be a whole number`,
		`{"Network": "10.6.0.0/16", "Backend": {"Type": "vxlan", "VNI": 1e9}}`: `-network: Backend.VNI`,
		netip.PrefixFrom(a.Addr().Addr(), 16).Masked().String():                "this host's address",
	} {
		refuses(t, a.launch("-network="+wrong), want)
	}
	a.join("-network=" + network.String())
}
