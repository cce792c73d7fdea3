package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// wire is the interface of both hosts to each other, below the uplink of these tests.
const wire = "wire0"

// uplinkKinds are kinds of interfaces on top of the wire: the arguments of ip that make
// one with the name top0.
var uplinkKinds = map[string][]string{
	"vlan":               {"link add link wire0 name top0 type vlan id 5"},
	"macvlan":            {"link add link wire0 name top0 type macvlan mode bridge"},
	"ipvlan":             {"link add link wire0 name top0 type ipvlan mode l2"},
	"bridge":             {"link add top0 type bridge", "link set wire0 master top0"},
	"bond active-backup": {"link add top0 type bond mode active-backup miimon 100", "link set wire0 down", "link set wire0 master top0", "link set wire0 up"},
	"bond balance-rr":    {"link add top0 type bond mode balance-rr miimon 100", "link set wire0 down", "link set wire0 master top0", "link set wire0 up"},
}

// kindsHere returns the kinds that this kernel has, in order.
func kindsHere(t *testing.T) []string {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	var here []string
	for i, kind := range slices.Sorted(maps.Keys(uplinkKinds)) {
		h := lab.Host(fmt.Sprint("probe", i))
		lab.Wire(h, wire, lab.Router(), fmt.Sprint("probe", i), 0)
		out, err := output(t, h, "ip", strings.Fields(uplinkKinds[kind][0])...)
		switch {
		case err == nil:
			here = append(here, kind)
		case strings.Contains(out, "Unknown device type") || strings.Contains(out, "not supported"):
			t.Logf("this kernel has no %s: %s", kind, strings.TrimSpace(out))
		default:
			t.Fatalf("make %s: %v\n%s", kind, err, out)
		}
	}
	return here
}

// Each backend carries packets over each kind of uplink, also after a restart.
func TestUplinkKinds(t *testing.T) {
	configs := map[string]string{"udp": `{"Type": "udp"}`, "vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`}
	for _, datapath := range wireguards(t) {
		configs["wireguard "+datapath] = `{"Type": "wireguard", "Datapath": "` + datapath + `"}`
	}
	for _, kind := range kindsHere(t) {
		for name, config := range configs {
			t.Run(kind+", "+name, func(t *testing.T) { testUplinkKind(t, kind, config) })
		}
	}
}

func testUplinkKind(t *testing.T, kind, config string) {
	c := newCluster(t, "3")
	c.use(config)
	a, b := c.node("a", "-iface=top0"), c.node("b", "-iface=top0")
	c.lab.Wire(a.Host, wire, b.Host, wire, 0)
	for i, n := range []*node{a, b} {
		for _, command := range uplinkKinds[kind] {
			n.run(append([]string{"ip"}, strings.Fields(command)...)...)
		}
		n.AddAddr("top0", netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 90, byte(1 + i)}), 24))
		n.Up("top0")
	}
	da, _ := c.joinPair(a, b)
	copyBulk(t, a.container, b.container)
	copyBulk(t, b.container, a.container)
	da.stop()
	a.join()
	c.awaitPair(a, b)
}

// Each data path of udp carries a connection over a link that loses, delays, repeats
// and reorders packets.
func TestBadLink(t *testing.T) {
	overEachDataPath(t, func(t *testing.T, flag string) {
		c := newCluster(t, "3")
		a, b := c.node("a", flag), c.node("b", flag)
		if out, err := output(t, a.Host, "tc", strings.Fields("qdisc add dev eth0 root netem delay 2ms 1ms loss 1% duplicate 1% reorder 5%")...); err != nil {
			if !strings.Contains(out, "qdisc kind is unknown") {
				t.Fatalf("tc: %v\n%s", err, out)
			}
			t.Logf("this kernel has no netem, so the link is a good one: %s", strings.TrimSpace(out))
		}
		c.joinPair(a, b)
		copyBulk(t, a.container, b.container)
		copyBulk(t, b.container, a.container)
	})
}
