package e2e

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

const vtepDevice = "flannel.1"

// vxlanPeers reads route, neighbour and FDB entry of each peer together, so a
// missing one shows.
func vxlanPeers(n *node) (map[string]string, error) {
	routes, err := ownRoutes(n)
	if err != nil {
		return nil, err
	}
	link, err := n.Netlink().LinkByName(vtepDevice)
	if err != nil {
		return nil, err
	}
	macs, hosts := make(map[string]string), make(map[string]string)
	for _, family := range []int{unix.AF_INET, unix.AF_BRIDGE} {
		entries, err := n.Netlink().NeighList(link.Attrs().Index, family)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			switch {
			case e.State&netlink.NUD_PERMANENT == 0:
			case family == unix.AF_INET:
				macs[e.IP.String()] = e.HardwareAddr.String()
			default:
				hosts[e.HardwareAddr.String()] += e.IP.String()
			}
		}
	}
	peers := make(map[string]string)
	for dst, route := range routes {
		mac := macs[netip.MustParsePrefix(dst).Addr().String()]
		peers[dst] = fmt.Sprintf("%s, %s, %s", route, mac, hosts[mac])
		delete(macs, netip.MustParsePrefix(dst).Addr().String())
	}
	if len(macs) > 0 {
		return nil, fmt.Errorf("neighbours without a route: %v", macs)
	}
	return peers, nil
}

func (n *node) mac(t *testing.T) string {
	t.Helper()
	link, err := n.Netlink().LinkByName(vtepDevice)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().HardwareAddr.String()
}

var vxlanCase = backendCase{
	name: "vxlan", config: `{"Type": "vxlan"}`, mtu: 1450, staysUp: true,
	lease: func(addr, mac string) string {
		return `{"PublicIP":"` + addr + `","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"` + mac + `"}}`
	},
	own:    func(v leaseValue) string { return v.BackendData.VtepMAC },
	madeUp: func(n int) string { return fmt.Sprintf("0e:00:00:00:00:%02x", n) },
	read:   vxlanPeers,
	wants: func(subnet netip.Prefix, v leaseValue) string {
		return fmt.Sprintf("via %v dev flannel.1 onlink, %s, %v", subnet.Addr(), v.BackendData.VtepMAC, v.PublicIP)
	},
	harms: []string{
		"ip link del flannel.1",
		"ip link set flannel.1 address 0e:11:22:33:44:55",
		"ip link set flannel.1 down",
		"ip link set flannel.1 mtu 1000",
		"ip addr flush dev flannel.1",
		"ip neigh flush dev flannel.1 nud permanent",
		"ip route flush proto 85",
	},
	device: vtepDevice,
}

// A flush of the FDB, which takes permanent entries too, is undone.
func TestVXLANFlushedFDB(t *testing.T) {
	c := newCluster(t, "3")
	c.use(vxlanCase.config)
	a, b := c.node("a"), c.node("b")
	c.joinPair(a, b)
	entries := func() string {
		t.Helper()
		out, err := output(t, a.Host, "bridge", "fdb", "show", "dev", vtepDevice)
		if err != nil {
			t.Fatal(out)
		}
		return out
	}
	before := entries()
	if !strings.Contains(before, b.Addr().Addr().String()) {
		t.Fatalf("no entry of b:\n%s", before)
	}
	if out, err := output(t, a.Host, "bridge", "fdb", "flush", "dev", vtepDevice); err != nil {
		if !strings.Contains(out, "not supported") {
			t.Fatalf("flush: %v\n%s", err, out)
		}
		netnstest.FDBFlush.Missing(t, out)
		return
	}
	eventually(t, "the entries are back", func() error {
		if now := entries(); now != before {
			return fmt.Errorf("they were\n%s\nand are\n%s", before, now)
		}
		return nil
	})
	c.awaitPair(a, b)
}

// Every option reaches the kernel, and flannel replaces a device that no longer
// fits.
func TestVXLANOptions(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a")
	device := func(name string) string {
		out, err := output(t, a.Host, "ip", "-d", "link", "show", "dev", name)
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return out
	}
	c.use(`{"Type": "vxlan", "VNI": 7, "port": 4789, "MTU": 1400, "GBP": true, "Learning": true}`)
	a.join().stop()
	text := device("flannel.7")
	for _, want := range []string{"vxlan id 7 ", "dstport 4789 ", "mtu 1350 ", " gbp ", "local " + a.Addr().Addr().String() + " dev eth0"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "nolearning") {
		t.Errorf("does not learn:\n%s", text)
	}
	index := regexp.MustCompile(`^\d+:`)
	c.use(`{"Type": "vxlan", "VNI": 7, "Port": 4789, "GBP": true, "Learning": true}`)
	a.join().stop()
	if again := device("flannel.7"); index.FindString(again) != index.FindString(text) || !strings.Contains(again, "mtu 1450 ") {
		t.Errorf("a device that fits but for its MTU was not kept:\n%s\nthen\n%s", text, again)
	}
	c.use(`{"Type": "vxlan", "VNI": 7, "Port": 4789}`)
	a.join().stop()
	if again := device("flannel.7"); strings.Contains(again, " gbp ") || !strings.Contains(again, "nolearning") {
		t.Errorf("the device was kept:\n%s", again)
	}
	c.use(`{"Type": "vxlan"}`)
	a.join().stop()
	if a.HasLink("flannel.7") || !a.HasLink(vtepDevice) {
		t.Error("the device of the old VNI was left behind, or there is no new one")
	}
}

// Hosts on one link exchange packets as they are, others by VXLAN.
func TestVXLANDirectRouting(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "vxlan", "DirectRouting": true}`)
	a, b := c.node("a"), c.node("b")
	// A host behind the router.
	far := c.lab.Namespace("far")
	c.lab.Wire(c.lab.Router(), "far0", far, netnstest.Uplink, 0)
	c.lab.Router().AddAddr("far0", netip.MustParsePrefix("203.0.113.1/24"))
	c.lab.Router().Sysctl("net.ipv4.ip_forward", "1")
	far.AddAddr(netnstest.Uplink, netip.MustParsePrefix("203.0.113.2/24"))
	far.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.MustParseAddr("203.0.113.1"), "")
	z := c.nodeOn(far)
	c.joinPair(a, b)
	z.join()
	z.addContainer()
	for _, n := range []*node{a, b} {
		c.awaitPair(n, z)
	}
	check := func() error {
		routes, err := ownRoutes(a)
		if err != nil {
			return err
		}
		want := map[string]string{
			b.subnet().String(): fmt.Sprintf("via %v dev eth0 onlink", b.Addr().Addr()),
			z.subnet().String(): fmt.Sprintf("via %v dev flannel.1 onlink", z.subnet().Addr()),
		}
		if fmt.Sprint(routes) != fmt.Sprint(want) {
			return fmt.Errorf("routes of a: %v, want %v", routes, want)
		}
		return nil
	}
	eventually(t, "routes are direct where they can be", check)

	// A host may move to another link.
	a.AddAddr(netnstest.Uplink, netip.PrefixFrom(a.Addr().Addr(), 32))
	a.run("ip", "route", "add", "192.168.77.254/32", "dev", "eth0")
	a.run("ip", "route", "add", "192.168.77.0/24", "via", "192.168.77.254", "metric", "50")
	a.run("ip", "addr", "del", a.Addr().String(), "dev", "eth0")
	eventually(t, "nothing is direct any more", func() error {
		routes, err := ownRoutes(a)
		if want := fmt.Sprintf("via %v dev flannel.1 onlink", b.subnet().Addr()); err == nil && routes[b.subnet().String()] != want {
			err = fmt.Errorf("routes of a: %v, want %s to b", routes, want)
		}
		return err
	})
}

// A host that is set up by hand after the protocol's description alone.
func TestVXLANPeerByHand(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "vxlan"}`)
	a := c.node("a")
	a.join()
	a.addContainer()
	const mac = "c6:d2:32:6f:8f:44"
	hand := c.byHand("hand", `{"PublicIP":"%v","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"`+mac+`"}}`)
	_, v := parseLease(t, a.leaseKey(), c.leases()[a.leaseKey()])
	hand.addVTEP("flannel.1", 1450, vtep{handSubnet, hand.Addr().Addr(), mac}, vtep{a.subnet(), v.PublicIP, v.BackendData.VtepMAC})
	c.awaitPair(a, hand)
	if err := transfer(t, a.container, hand.container, hand.containerAddr()); err != nil {
		t.Error(err)
	}
}

// vtep is a host's end of VXLAN, by the family of its subnet: the host's address, and the
// MAC of its device.
type vtep struct {
	subnet netip.Prefix
	host   netip.Addr
	mac    string
}

// addVTEP makes a node's end by hand, with the entries for one peer.
func (n *node) addVTEP(device string, mtu int, own, peer vtep) {
	n.t.Helper()
	addr, via := netip.PrefixFrom(own.subnet.Addr(), own.subnet.Addr().BitLen()), peer.subnet.Addr().String()
	for _, command := range []string{
		fmt.Sprintf("ip link add %s address %s mtu %d type vxlan id 1 dstport 8472 dev eth0 local %v nolearning", device, own.mac, mtu, own.host),
		fmt.Sprintf("ip addr add %v dev %s", addr, device),
		fmt.Sprintf("ip link set %s up", device),
		fmt.Sprintf("ip neigh add %s lladdr %s nud permanent dev %s", via, peer.mac, device),
		fmt.Sprintf("bridge fdb add %s dev %s dst %v", peer.mac, device, peer.host),
		fmt.Sprintf("ip route add %v via %s dev %s onlink", peer.subnet, via, device),
	} {
		n.run(strings.Fields(command)...)
	}
}

// Data that does not fit is one peer's problem.
func TestVXLANBadPeers(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "vxlan"}`)
	a, b := c.node("a"), c.node("b")
	c.joinPair(a, b)
	for i, data := range []string{
		`{"VNI":1,"VtepMAC":"nonsense"}`, `{"VNI":1,"VtepMAC":"01:00:5e:00:00:01"}`, `{"VNI":2,"VtepMAC":"0e:00:00:00:00:01"}`,
		`{"VNI":1,"VtepMAC":"` + a.mac(t) + `"}`, `{"VNI":1}`, `"text"`, `null`,
	} {
		c.keys.put(t, fmt.Sprintf("subnets/10.5.%d.0-24", 120+i),
			fmt.Sprintf(`{"PublicIP":"192.168.77.%d","PublicIPv6":null,"BackendType":"vxlan","BackendData":%s}`, 120+i, data), 0)
	}
	// An old generation has no VNI in its data.
	c.keys.put(t, "subnets/10.5.130.0-24", `{"PublicIP":"192.168.77.130","BackendType":"vxlan","BackendData":{"VtepMAC":"0e:00:00:00:00:82"}}`, 0)
	eventually(t, "the good peers are all that there are", func() error {
		peers, err := vxlanPeers(a)
		if err == nil && (len(peers) != 2 || peers["10.5.130.0/24"] == "") {
			err = fmt.Errorf("peers of a: %v", peers)
		}
		return err
	})
	a.awaitProblems(7)
	c.awaitPair(a, b)
}
