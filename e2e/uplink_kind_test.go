package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// wire is the interface of both hosts to each other, below the uplink of these tests.
const wire = "wire0"

// uplinkKind is a kind of interface on top of the wire.
type uplinkKind struct {
	name  string
	needs netnstest.Feature
	// commands are arguments of ip that make an interface with the name top0. OWN and
	// PEER are the numbers of the two hosts.
	commands []string
	// refuses has the words with which a daemon does not start, by backend.
	refuses map[string]string
}

var uplinkKinds = []uplinkKind{
	{name: "vlan", needs: netnstest.VLAN, commands: []string{"link add link wire0 name top0 type vlan id 5"}},
	{name: "macvlan", needs: netnstest.MACVLAN, commands: []string{"link add link wire0 name top0 type macvlan mode bridge"}},
	{name: "ipvlan", needs: netnstest.IPVLAN, commands: []string{"link add link wire0 name top0 type ipvlan mode l2"}},
	{name: "bridge", needs: netnstest.Bridge, commands: []string{"link add top0 type bridge", "link set wire0 master top0"}},
	bondOf("active-backup"),
	bondOf("balance-rr"),
	bondOf("802.3ad lacp_rate fast"),
	tunnelOf("ipip", netnstest.IPIP),
	tunnelOf("gre", netnstest.GRE),
	{
		name: "vrf", needs: netnstest.VRF,
		commands: []string{"link add red0 type vrf table 10", "link set red0 up", "link set wire0 down", "link set wire0 name top0", "link set top0 master red0"},
		refuses:  map[string]string{"host-gw": "VRF red0", "wireguard kernel": "VRF red0"},
	},
}

func bondOf(mode string) uplinkKind {
	return uplinkKind{name: "bond " + strings.Fields(mode)[0], needs: netnstest.Bond, commands: []string{
		"link add top0 type bond miimon 100 mode " + mode, "link set wire0 down", "link set wire0 master top0", "link set wire0 up",
	}}
}

// tunnelOf is a tunnel through which the hosts have a network of their own, without
// Ethernet headers.
func tunnelOf(kind string, needs netnstest.Feature) uplinkKind {
	return uplinkKind{name: kind, needs: needs, commands: []string{
		"link add top0 type " + kind + " local 192.0.2.OWN remote 192.0.2.PEER", "addr add 192.0.2.OWN/24 dev wire0",
	}}
}

// makeOn makes the interface on a host of the pair, number 1 or 2.
func (k uplinkKind) makeOn(t *testing.T, h *netnstest.Host, number int) (out string, err error) {
	t.Helper()
	numbers := strings.NewReplacer("OWN", fmt.Sprint(number), "PEER", fmt.Sprint(3-number))
	for _, command := range k.commands {
		if out, err = output(t, h, "ip", strings.Fields(numbers.Replace(command))...); err != nil {
			return out, fmt.Errorf("ip %s: %w", command, err)
		}
	}
	return "", nil
}

// kindsHere returns the kinds that this kernel has.
func kindsHere(t *testing.T) []uplinkKind {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	var here []uplinkKind
	for i, kind := range uplinkKinds {
		h := lab.Host(fmt.Sprint("probe", i))
		lab.Wire(h, wire, lab.Router(), fmt.Sprint("probe", i), 0)
		out, err := kind.makeOn(t, h, 1)
		switch {
		case err == nil:
			here = append(here, kind)
		case strings.Contains(out, "Unknown device type") || strings.Contains(out, "not supported"):
			kind.needs.Missing(t, out)
		default:
			t.Fatalf("make %s: %v\n%s", kind.name, err, out)
		}
	}
	return here
}

// Each backend carries packets over each kind of uplink, also after a restart, or does
// not start and has the reason.
func TestUplinkKinds(t *testing.T) { overUplinks(t, kindsHere(t), uplinkKind.test) }

// A bond gets a second link while daemons run, and loses each of the two in turn. The
// backends carry packets over the other.
func TestBondChangesLinks(t *testing.T) {
	bonds := slices.DeleteFunc(kindsHere(t), func(k uplinkKind) bool { return k.needs != netnstest.Bond })
	overUplinks(t, bonds, func(k uplinkKind, t *testing.T, _, config string) {
		const second = "wire1"
		c, a, b := k.pairOver(t, config)
		c.joinPair(a, b)
		c.lab.Wire(a.Host, second, b.Host, second, 0)
		for _, n := range []*node{a, b} {
			n.Down(second)
			n.run("ip", "link", "set", second, "master", "top0")
			n.Up(second)
		}
		for _, lost := range []string{wire, second} {
			a.Down(lost) // and b's end has no carrier
			c.awaitPair(a, b)
			copyBulk(t, a.container, b.container)
			copyBulk(t, b.container, a.container)
			a.Up(lost)
			for _, n := range []*node{a, b} {
				eventually(t, "the bond of "+n.Name()+" has two links again", func() error { return n.hasBondOf(2) })
			}
		}
	})
}

// hasBondOf returns an error unless the node's bond uses that many links.
func (n *node) hasBondOf(links int) error {
	text, err := output(n.t, n.Host, "cat", "/proc/net/bonding/top0")
	if err == nil && strings.Count(text, "MII Status: up") != 1+links { // that of the bond is one
		err = fmt.Errorf("%s", text)
	}
	return err
}

// overUplinks runs a test with each kind of uplink and each backend.
func overUplinks(t *testing.T, kinds []uplinkKind, test func(k uplinkKind, t *testing.T, backend, config string)) {
	t.Helper()
	configs := map[string]string{"udp": `{"Type": "udp"}`, "vxlan": `{"Type": "vxlan"}`, "host-gw": `{"Type": "host-gw"}`}
	for _, datapath := range wireguards(t) {
		configs["wireguard "+datapath] = `{"Type": "wireguard", "Datapath": "` + datapath + `"}`
	}
	for _, kind := range kinds {
		for name, config := range configs {
			t.Run(kind.name+", "+name, func(t *testing.T) { test(kind, t, name, config) })
		}
	}
}

// uplinkAddr is the address at the interface of a host of the pair.
func uplinkAddr(number int) netip.Addr { return netip.AddrFrom4([4]byte{192, 168, 90, byte(number)}) }

// pairOver makes a pair of hosts with an uplink of the kind. The daemons, which will have
// args, do not run yet.
func (k uplinkKind) pairOver(t *testing.T, config string, args ...string) (c *cluster, a, b *node) {
	t.Helper()
	c = newCluster(t, "3")
	c.use(config)
	args = append(args, "-iface=top0")
	a, b = c.node("a", args...), c.node("b", args...)
	c.lab.Wire(a.Host, wire, b.Host, wire, 0)
	for i, n := range []*node{a, b} {
		if out, err := k.makeOn(t, n.Host, 1+i); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		n.AddAddr("top0", netip.PrefixFrom(uplinkAddr(1+i), 24))
		n.Up("top0")
	}
	return c, a, b
}

func (k uplinkKind) test(t *testing.T, backend, config string) {
	c, a, b := k.pairOver(t, config)
	if reason := k.refuses[backend]; reason != "" {
		d := a.launch()
		if code := d.wait().ExitCode(); code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
		d.says(reason)
		return
	}
	da, _ := c.joinPair(a, b)
	t.Logf("data path %s: %s", a.status().Backend.DataPath, a.status().Backend.DataPathReason)
	copyBulk(t, a.container, b.container)
	copyBulk(t, b.container, a.container)
	da.stop()
	a.join()
	c.awaitPair(a, b)
}

// The interface below a macvlan answers ARP requests for the macvlan's address, too. So a
// peer may send to either's hardware address, and its packets arrive by either. They are
// admitted.
func TestMacvlanSharesARP(t *testing.T) {
	for _, kind := range kindsHere(t) {
		if kind.name != "macvlan" {
			continue
		}
		overEachDataPath(t, func(t *testing.T, dataPath string) {
			c, a, b := kind.pairOver(t, `{"Type": "udp"}`, dataPath)
			for i, way := range [][2]*node{{a, b}, {b, a}} {
				below, err := way[1].Netlink().LinkByName(wire)
				if err != nil {
					t.Fatal(err)
				}
				way[0].run("ip", "neigh", "replace", uplinkAddr(2-i).String(), "lladdr", below.Attrs().HardwareAddr.String(), "dev", "top0", "nud", "permanent")
			}
			c.joinPair(a, b)
			copyBulk(t, a.container, b.container)
			copyBulk(t, b.container, a.container)
		})
	}
}
