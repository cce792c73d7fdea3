package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// cniPlugins is where Debian's containernetworking-plugins are.
const cniPlugins = "/usr/lib/cni"

// cniPlugin runs the bridge plugin as a container engine does (CNI
// specification 1.0.0, section 2), for a container that is a namespace of the
// lab.
func (n *node) cniPlugin(command string, conf []byte, container *netnstest.Host) ([]byte, error) {
	n.t.Helper()
	cmd := n.Command(n.t.Context(), filepath.Join(cniPlugins, "bridge"))
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID="+container.Name(),
		"CNI_NETNS=/run/netns/"+container.Netns(), "CNI_IFNAME=eth0", "CNI_PATH="+cniPlugins)
	cmd.Stdin = strings.NewReader(string(conf))
	return cmd.Output()
}

// cniConf is the output of "flannel cni-conf" in the form that an engine passes
// to its one plugin: with the list's name and version. A folder of the test
// records used addresses.
func (n *node) cniConf() []byte {
	n.t.Helper()
	out, err := output(n.t, n.Host, programs.flannel, "cni-conf", "-subnet-file="+n.envFile)
	if err != nil {
		n.t.Fatalf("flannel cni-conf: %v\n%s", err, out)
	}
	var list struct {
		Version string           `json:"cniVersion"`
		Name    string           `json:"name"`
		Plugins []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list.Plugins) != 1 || list.Plugins[0]["type"] != "bridge" {
		n.t.Fatalf("flannel cni-conf prints %v\n%s", err, out)
	}
	plugin := list.Plugins[0]
	plugin["cniVersion"], plugin["name"] = list.Version, list.Name
	plugin["ipam"].(map[string]any)["dataDir"] = n.t.TempDir()
	conf, err := json.Marshal(plugin)
	if err != nil {
		n.t.Fatal(err)
	}
	return conf
}

// Containers that CNI's bridge plugin connects on two hosts talk to each other
// under their own addresses, and to the world outside under their host's.
func TestCNI(t *testing.T) {
	overEachDataPath(t, func(t *testing.T, dataPath string) { testCNI(t, "4", "-ip-masq", dataPath) })
}

// With IPv6 they do so in both families. A private IPv6 network is masqueraded as -ip-masq
// says, unless a flag of its own says otherwise.
func TestCNIOfBothFamilies(t *testing.T) {
	for name, args := range map[string][]string{"masqueraded": {"-ip-masq"}, "IPv4 alone masqueraded": {"-ip-masq", "-ip-masq-ipv6=false"}} {
		t.Run(name, func(t *testing.T) { testCNI(t, "46", args...) })
	}
}

func testCNI(t *testing.T, inside string, args ...string) {
	c := newCluster(t, "3")
	c.configure(familyConfig(inside, `{"Type": "udp"}`))
	guest := buildGuest(t)
	serveOn(t, c.lab.Router(), guest)
	var nodes [2]*node
	var confs [2][]byte
	var addrs [2][]netip.Addr
	for i, name := range []string{"a", "b"} {
		n := c.dualNode(name, args...)
		n.join()
		n.Sysctl("net.ipv4.ip_forward", "1")
		n.Sysctl("net.ipv6.conf.all.forwarding", "1")
		nodes[i], confs[i] = n, n.cniConf()
		n.container = c.lab.Namespace(name + "-cni")
		n.container.Sysctl("net.ipv6.conf.default.accept_dad", "0")
		addrs[i] = n.addByCNI(confs[i], len(inside))
		serveOn(t, n.container, guest)
	}
	nodes[0].awaitPeer(nodes[1].subnet(), nodes[1].Addr().Addr())
	for f, from := range addrs[0] {
		if from.Is6() {
			nodes[0].awaitPeer(nodes[1].ipv6Subnet(), nodes[1].IPv6Addr().Addr())
		}
		for i, n := range nodes {
			c.talkByCNI(n, guest, addrs[i][f], addrs[1-i][f], !slices.Contains(args, "-ip-masq-ipv6=false"))
		}
	}
	for i, n := range nodes {
		if out, err := n.cniPlugin("DEL", confs[i], n.container); err != nil {
			t.Errorf("CNI_COMMAND=DEL on host %s: %v\n%s", n.Name(), err, out)
		}
		if n.container.HasLink("eth0") {
			t.Errorf("host %s: the container still has its interface", n.Name())
		}
	}
}

// addByCNI connects the container, and returns its addresses, the IPv4 one first.
func (n *node) addByCNI(conf []byte, want int) (addrs []netip.Addr) {
	n.t.Helper()
	out, err := n.cniPlugin("ADD", conf, n.container)
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil || len(result.IPs) != want {
		n.t.Fatalf("CNI_COMMAND=ADD on host %s: %v\n%s", n.Name(), err, out)
	}
	for _, ip := range result.IPs {
		a := ip.Address.Addr()
		if !n.subnet().Contains(a) && !n.ipv6Subnet().Contains(a) {
			n.t.Fatalf("the container on host %s has the address %v, not of %v or %v", n.Name(), a, n.subnet(), n.ipv6Subnet())
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// talkByCNI sends from a node's container, which has the address own, to a container on
// another host and to the world outside.
func (c *cluster) talkByCNI(n *node, guest string, own, other netip.Addr, masqueradesIPv6 bool) {
	c.t.Helper()
	peer := net.JoinHostPort(other.String(), guestPort)
	ipHeader, router, host := ipv4Header, c.lab.Router().Addr().Addr(), n.Addr().Addr()
	if own.Is6() {
		ipHeader, router, host = ipv6Header, c.lab.Router().IPv6Addr().Addr(), n.IPv6Addr().Addr()
		if !masqueradesIPv6 {
			host = own
			c.lab.Router().AddRoute(netip.PrefixFrom(own, 64).Masked(), n.IPv6Addr().Addr(), "")
		}
	}
	for _, args := range [][]string{
		{"udp", peer, fmt.Sprint(n.mtu() - ipHeader - udpHeader)},
		{"udp", peer, "60000", "fragment"},
	} {
		if out, err := output(n.t, n.container, guest, args...); err != nil {
			n.t.Errorf("host %s: guest %v: %v\n%s", n.Name(), args, err, out)
		}
	}
	for addr, want := range map[string]netip.Addr{peer: own, net.JoinHostPort(router.String(), guestPort): host} {
		seen, err := output(n.t, n.container, guest, "tcp", addr, fmt.Sprint(4<<20))
		if err != nil || strings.TrimSpace(seen) != want.String() {
			n.t.Errorf("%s sees the container of host %s as %q, %v; want %v", addr, n.Name(), seen, err, want)
		}
	}
}
