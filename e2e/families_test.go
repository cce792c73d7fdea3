package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// mixCase is a network: the families inside and outside, and the backend.
type mixCase struct {
	name, inside, backend string // inside is "4", "6" or "46"
	// outside are the families of the datagrams.
	outside string
	args    []string
	mtu     int
	// devices are deleted, one after the other.
	devices []string
	// dataPath is the status's name of it.
	dataPath string
}

// outsideOf are the families of the datagrams in a Mode.
func outsideOf(mode, inside string) string {
	switch mode {
	case "ipv4":
		return "4"
	case "ipv6":
		return "6"
	}
	return inside
}

func udpMix(path, inside, mode string) mixCase {
	m := mixCase{
		name: fmt.Sprintf("udp %s %s in %s", path, inside, mode), inside: inside, outside: outsideOf(mode, inside), mtu: 1472,
		backend: fmt.Sprintf(`{"Type": "udp", "Mode": %q}`, mode), args: []string{"-udp-datapath=" + path},
		devices: []string{"flannel0"}, dataPath: path,
	}
	if path == "auto" {
		m.dataPath = "kernel"
	}
	if m.outside != "4" {
		m.mtu = 1452
	}
	return m
}

func wireguardMix(path, inside, mode string, devices ...string) mixCase {
	return mixCase{
		name: fmt.Sprintf("wireguard %s %s in %s", path, inside, mode), inside: inside, outside: outsideOf(mode, inside), mtu: 1420,
		backend: fmt.Sprintf(`{"Type": "wireguard", "Mode": %q, "Datapath": %q}`, mode, path), devices: devices, dataPath: path,
	}
}

// mixes are all pairs of families inside and outside for each backend and data path.
// guards are the data paths of WireGuard here.
func mixes(guards []string) []mixCase {
	all := []mixCase{
		udpMix("plain", "46", "auto"),
		udpMix("auto", "46", "auto"),
		{name: "vxlan 46", inside: "46", outside: "46", backend: `{"Type": "vxlan"}`, mtu: 1430, devices: []string{"flannel.1", "flannel-v6.1"}, dataPath: "vxlan"},
		{name: "vxlan 6", inside: "6", outside: "6", backend: `{"Type": "vxlan"}`, mtu: 1430, devices: []string{"flannel-v6.1"}, dataPath: "vxlan"},
		{name: "vxlan 4", inside: "4", outside: "4", backend: `{"Type": "vxlan"}`, mtu: 1450, devices: []string{"flannel.1"}, dataPath: "vxlan"},
		{name: "host-gw 46", inside: "46", outside: "46", backend: `{"Type": "host-gw"}`, mtu: 1500, dataPath: "routes"},
		{name: "host-gw 6", inside: "6", outside: "6", backend: `{"Type": "host-gw"}`, mtu: 1500, dataPath: "routes"},
		{name: "host-gw 4", inside: "4", outside: "4", backend: `{"Type": "host-gw"}`, mtu: 1500, dataPath: "routes"},
	}
	for _, path := range guards {
		all = append(all, wireguardMix(path, "46", "separate", "flannel-wg", "flannel-wg-v6"), wireguardMix(path, "46", "auto", "flannel-wg"))
	}
	for _, pair := range []struct{ inside, mode string }{{"46", "ipv4"}, {"46", "ipv6"}, {"6", "ipv4"}, {"6", "ipv6"}, {"4", "ipv4"}, {"4", "ipv6"}} {
		for _, path := range []string{"plain", "offload", "auto"} {
			all = append(all, udpMix(path, pair.inside, pair.mode))
		}
		for _, path := range guards {
			all = append(all, wireguardMix(path, pair.inside, pair.mode, "flannel-wg"))
		}
	}
	return all
}

// Containers on three hosts reach each other in each family, whatever the family of
// the datagrams. They do so after a restart, a crash, the end of a host, a change of its
// addresses, and the loss of a device.
func TestFamilies(t *testing.T) {
	for _, m := range mixes(wireguards(t)) {
		t.Run(m.name, func(t *testing.T) { m.run(t) })
	}
}

// mixTrio is three hosts of a mixCase.
type mixTrio struct {
	*cluster
	mix     mixCase
	nodes   [3]*node
	daemons [3]*daemon
}

func (m mixCase) run(t *testing.T) {
	tr := &mixTrio{cluster: newCluster(t, "3"), mix: m}
	tr.configure(familyConfig(m.inside, m.backend))
	for i, name := range []string{"a", "b", "c"} {
		tr.nodes[i] = tr.dualNode(name, m.args...)
		tr.daemons[i] = tr.nodes[i].join()
		tr.addContainer(i)
		if got := tr.nodes[i].mtu(); got != m.mtu {
			t.Errorf("FLANNEL_MTU is %d, want %d", got, m.mtu)
		}
	}
	a, b, c := tr.nodes[0], tr.nodes[1], tr.nodes[2]
	tr.meet("at first")
	for _, n := range tr.nodes {
		tr.checkDataPath(n)
	}
	for _, addr := range tr.containerAddrs(b) {
		if err := transfer(t, a.container, b.container, addr); err != nil {
			t.Errorf("to %v: %v", addr, err)
		}
	}

	tr.daemons[0].kill()
	tr.daemons[1].stop()
	tr.daemons[0], tr.daemons[1] = a.join(), b.join()
	tr.meet("after a crash and a restart")

	// A host that leaves while another one is down.
	tr.daemons[0].stop()
	tr.daemons[2].stop()
	for key := range tr.leases() {
		if tr.isLeaseOf(c, key) {
			tr.keys.del(t, "subnets/"+key)
		}
	}
	tr.daemons[0] = a.join()
	eventually(t, "a has one peer for each family", func() error {
		s, err := a.readStatus()
		if err == nil && len(s.Backend.Peers) != len(m.inside) {
			err = fmt.Errorf("peers %v", s.Backend.Peers)
		}
		return err
	})
	tr.daemons[2] = c.join()
	tr.meet("after one left and came back")

	tr.renumber(a)
	tr.meet("after a has other addresses")

	for _, device := range m.devices {
		a.run("ip", "link", "del", device)
		tr.meet("without " + device)
	}
}

// checkDataPath compares the data path in the status. A kernel may lack what its path
// needs for a network whose packets all are in datagrams of the other family.
func (tr *mixTrio) checkDataPath(n *node) {
	tr.t.Helper()
	s := n.status().Backend
	want := tr.mix.dataPath
	mixedOnly := !strings.ContainsAny(tr.mix.inside, tr.mix.outside)
	if mixedOnly && strings.Contains(s.DataPathReason, "needs Linux 6.3") {
		netnstest.MixedDecap.Missing(tr.t, s.DataPathReason)
		want = "offload"
	}
	if s.DataPath != want {
		tr.t.Errorf("data path of %s is %q, want %q: %s", n.Name(), s.DataPath, want, s.DataPathReason)
	}
}

// renumber gives a host another address of each family outside, and waits until its lease
// names it.
func (tr *mixTrio) renumber(n *node) {
	tr.t.Helper()
	if strings.Contains(tr.mix.outside, "4") {
		n.DelAddr(netnstest.Uplink, n.Addr())
		n.AddAddr(netnstest.Uplink, netip.MustParsePrefix("192.168.77.200/24"))
		n.run("ip", "route", "replace", "default", "via", tr.lab.Router().Addr().Addr().String())
		tr.awaitLease(n, `"PublicIP":"192.168.77.200"`)
	}
	if strings.Contains(tr.mix.outside, "6") {
		n.AddAddr(netnstest.Uplink, netip.MustParsePrefix("fd00:77::77/64"))
		n.DelAddr(netnstest.Uplink, n.IPv6Addr())
		tr.awaitLease(n, `"PublicIPv6":"fd00:77::77"`)
	}
}

// awaitLease waits until the value of a node's lease has a part.
func (tr *mixTrio) awaitLease(n *node, part string) {
	tr.t.Helper()
	eventually(tr.t, "the lease has "+part, func() error {
		leases := tr.leases()
		for key, value := range leases {
			if tr.isLeaseOf(n, key) && strings.Contains(value, part) {
				return nil
			}
		}
		return fmt.Errorf("the leases are %v", leases)
	})
}

// addContainer makes a bridge and a container with an address of each family inside. A
// bridge needs one of IPv4, which the overlay may not carry.
func (tr *mixTrio) addContainer(i int) {
	tr.t.Helper()
	n := tr.nodes[i]
	if strings.Contains(tr.mix.inside, "4") {
		n.addContainer()
	} else {
		gateway := netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, byte(i), 1}), 24)
		n.Bridge("docker0", gateway, n.mtu())
		n.container = n.Container(n.Name()+"-docker0", "docker0", netip.PrefixFrom(gateway.Addr().Next(), 24), gateway.Addr(), n.mtu())
	}
	if strings.Contains(tr.mix.inside, "6") {
		n.AddIPv6("docker0", n.container, n.ipv6Subnet())
	}
}

// containerAddrs are the addresses of a node's container in the families inside.
func (tr *mixTrio) containerAddrs(n *node) (all []netip.Addr) {
	if strings.Contains(tr.mix.inside, "4") {
		all = append(all, n.container.Addr().Addr())
	}
	if strings.Contains(tr.mix.inside, "6") {
		all = append(all, n.container.IPv6Addr().Addr())
	}
	return all
}

// isLeaseOf reports whether a lease's key is that of a node.
func (tr *mixTrio) isLeaseOf(n *node, key string) bool {
	if strings.Contains(tr.mix.inside, "6") {
		return strings.HasSuffix(key, "&"+strings.ReplaceAll(n.ipv6Subnet().String(), "/", "-"))
	}
	return key == n.leaseKey()
}

// meet waits until every two containers reach each other in each family, with packets
// of the MTU's size and with fragments.
func (tr *mixTrio) meet(when string) {
	tr.t.Helper()
	for _, from := range tr.nodes {
		for _, to := range tr.nodes {
			if from == to {
				continue
			}
			for _, addr := range tr.containerAddrs(to) {
				headers := 28
				if addr.Is6() {
					headers = 48
				}
				eventually(tr.t, fmt.Sprintf("%s, ping from %s to %v", when, from.Name(), addr), func() error {
					if err := ping(tr.t, from.container, addr, "-M", "do", "-s", fmt.Sprint(tr.mix.mtu-headers)); err != nil {
						return err
					}
					return ping(tr.t, from.container, addr, "-s", "4000")
				})
			}
		}
	}
}
