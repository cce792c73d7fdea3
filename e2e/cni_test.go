package e2e

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
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
func TestCNI(t *testing.T) { overEachDataPath(t, testCNI) }

func testCNI(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	guest := buildGuest(t)
	serveOn(t, c.lab.Router(), guest)
	var nodes [2]*node
	var confs [2][]byte
	var addrs [2]netip.Addr
	for i, name := range []string{"a", "b"} {
		n := c.node(name, "-ip-masq", dataPath)
		n.join()
		n.Sysctl("net.ipv4.ip_forward", "1")
		nodes[i], confs[i] = n, n.cniConf()
		n.container = c.lab.Namespace(name + "-cni")
		out, err := n.cniPlugin("ADD", confs[i], n.container)
		var result struct {
			IPs []struct{ Address netip.Prefix }
		}
		if err == nil {
			err = json.Unmarshal(out, &result)
		}
		if err != nil || len(result.IPs) != 1 {
			t.Fatalf("CNI_COMMAND=ADD on host %s: %v\n%s", name, err, out)
		}
		addrs[i] = result.IPs[0].Address.Addr()
		if !n.subnet().Contains(addrs[i]) {
			t.Fatalf("the container on host %s has the address %v, not of %v", name, addrs[i], n.subnet())
		}
		serveOn(t, n.container, guest)
	}
	nodes[0].awaitPeer(nodes[1].subnet(), nodes[1].Addr().Addr())
	outside := net.JoinHostPort(c.lab.Router().Addr().Addr().String(), guestPort)
	for i, n := range nodes {
		peer := net.JoinHostPort(addrs[1-i].String(), guestPort)
		for _, args := range [][]string{
			{"udp", peer, fmt.Sprint(n.mtu() - ipv4Header - udpHeader)},
			{"udp", peer, "60000", "fragment"},
		} {
			if out, err := output(t, n.container, guest, args...); err != nil {
				t.Errorf("host %s: guest %v: %v\n%s", n.Name(), args, err, out)
			}
		}
		for addr, want := range map[string]netip.Addr{peer: addrs[i], outside: n.Addr().Addr()} {
			seen, err := output(t, n.container, guest, "tcp", addr, fmt.Sprint(4<<20))
			if err != nil || strings.TrimSpace(seen) != want.String() {
				t.Errorf("%s sees the container of host %s as %q, %v; want %v", addr, n.Name(), seen, err, want)
			}
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
