package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// mixCase is a network: the families inside, and the backend with the family of its
// datagrams.
type mixCase struct {
	name, inside, backend string // inside is "4", "6" or "46"
	args                  []string
	mtu                   int
	// devices are deleted, one after the other.
	devices []string
	// dataPath is the status's name of it.
	dataPath string
}

func udpMix(path, inside, mode string, mtu int) mixCase {
	dataPath := path
	if path == "auto" {
		dataPath = "kernel"
	}
	return mixCase{
		name: fmt.Sprintf("udp %s %s in %s", path, inside, mode), inside: inside, mtu: mtu,
		backend: fmt.Sprintf(`{"Type": "udp", "Mode": %q}`, mode), args: []string{"-udp-datapath=" + path},
		devices: []string{"flannel0"}, dataPath: dataPath,
	}
}

func wireguardMix(inside, mode string, devices ...string) mixCase {
	return mixCase{
		name: fmt.Sprintf("wireguard %s in %s", inside, mode), inside: inside, mtu: 1420,
		backend: fmt.Sprintf(`{"Type": "wireguard", "Mode": %q, "Datapath": "userspace"}`, mode), devices: devices, dataPath: "userspace",
	}
}

var mixes = []mixCase{
	udpMix("plain", "46", "auto", 1452),
	udpMix("plain", "6", "ipv4", 1472),
	udpMix("offload", "46", "ipv4", 1472),
	udpMix("offload", "46", "ipv6", 1452),
	udpMix("offload", "4", "ipv6", 1452),
	udpMix("auto", "46", "auto", 1452),
	udpMix("auto", "6", "auto", 1452),
	udpMix("auto", "46", "ipv4", 1472),
	udpMix("auto", "46", "ipv6", 1452),
	udpMix("auto", "6", "ipv4", 1472),
	udpMix("auto", "4", "ipv6", 1452),
	{name: "vxlan 46", inside: "46", backend: `{"Type": "vxlan"}`, mtu: 1430, devices: []string{"flannel.1", "flannel-v6.1"}, dataPath: "vxlan"},
	{name: "vxlan 6", inside: "6", backend: `{"Type": "vxlan"}`, mtu: 1430, devices: []string{"flannel-v6.1"}, dataPath: "vxlan"},
	{name: "host-gw 46", inside: "46", backend: `{"Type": "host-gw"}`, mtu: 1500, dataPath: "routes"},
	{name: "host-gw 6", inside: "6", backend: `{"Type": "host-gw"}`, mtu: 1500, dataPath: "routes"},
	wireguardMix("46", "separate", "flannel-wg", "flannel-wg-v6"),
	wireguardMix("46", "auto", "flannel-wg"),
	wireguardMix("6", "ipv4", "flannel-wg"),
}

// Containers on three hosts reach each other in each family, whatever the family of
// the datagrams. They do so after a restart, a crash, the end of a host, and the loss of
// a device.
func TestFamilies(t *testing.T) {
	for _, m := range mixes {
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
		if s, err := n.readStatus(); err != nil || s.Backend.DataPath != m.dataPath {
			t.Errorf("data path of %s is %q, want %q; %v", n.Name(), s.Backend.DataPath, m.dataPath, err)
		}
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

	for _, device := range m.devices {
		a.run("ip", "link", "del", device)
		tr.meet("without " + device)
	}
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
