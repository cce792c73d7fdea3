package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// network is the overlay of most tests. Daemons get subnets up to 10.5.99.0; a
// test that plays a peer gives itself one above.
var network = netip.MustParsePrefix("10.5.0.0/16")

// udpPort is where hosts expect each other's packets.
const udpPort = 8285

// cluster is a lab with an etcd in its own namespace.
type cluster struct {
	t    *testing.T
	lab  *netnstest.Lab
	etcd *etcdserver.Server
	keys keys
	api  string
}

// newCluster makes a cluster with its configuration in etcd and no host yet.
func newCluster(t *testing.T, api string) *cluster {
	t.Helper()
	netnstest.Require(t)
	t.Parallel()
	c := &cluster{t: t, lab: netnstest.New(t), api: api}
	store := c.lab.Host("etcd")
	c.etcd = startEtcd(t, store)
	if api == "2" {
		c.keys = openV2(store, c.etcd.URL())
	} else {
		c.keys = openV3(t, store, c.etcd.URL())
	}
	c.configure(fmt.Sprintf(`{"Network": %q, "SubnetMax": "10.5.99.0"}`, network))
	return c
}

func (c *cluster) configure(config string) {
	c.t.Helper()
	c.keys.put(c.t, "config", config, 0)
}

// etcdAddr is etcd's host and port, which a message about it names.
func (c *cluster) etcdAddr() string { return strings.TrimPrefix(c.etcd.URL(), "http://") }

// etcdHost is the address of etcd's host.
func (c *cluster) etcdHost() netip.Addr {
	c.t.Helper()
	addr, err := netip.ParseAddrPort(c.etcdAddr())
	if err != nil {
		c.t.Fatal(err)
	}
	return addr.Addr()
}

// leases are the lease keys and their values.
func (c *cluster) leases() map[string]string {
	c.t.Helper()
	return c.keys.list(c.t, "subnets")
}

// sharedLeases returns the shared parts of all leases, by key.
func (c *cluster) sharedLeases() map[string]string {
	c.t.Helper()
	leases := c.leases()
	for key, value := range leases {
		leases[key] = shared(value)
	}
	return leases
}

// shared returns the part of a lease's value that other releases understand.
// Our own fields follow it, the NodeID first. A host publishes its data path later than
// its lease.
func shared(value string) string {
	before, _, own := strings.Cut(value, `,"NodeID":`)
	if !own {
		return "no NodeID in " + value
	}
	return before + "}"
}

// node is a host with the folders of its daemon, which survive a restart of the
// daemon.
type node struct {
	*netnstest.Host
	t         *testing.T
	args      []string
	envFile   string
	container *netnstest.Host
}

// node makes a host; its daemon, which will have args, does not run yet.
func (c *cluster) node(name string, args ...string) *node {
	c.t.Helper()
	return c.nodeOn(c.lab.Host(name), args...)
}

func (c *cluster) nodeOn(h *netnstest.Host, args ...string) *node {
	c.t.Helper()
	return newNode(c.t, h, c.etcd.URL(), args...)
}

// newNode makes a node whose etcd is at endpoints, separated by commas. If
// there are none, args have them.
func newNode(t *testing.T, h *netnstest.Host, endpoints string, args ...string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{Host: h, t: t, envFile: filepath.Join(dir, "run", "subnet.env")}
	n.args = []string{"-subnet-file=" + n.envFile, "-state-dir=" + n.stateFile("")}
	if endpoints != "" {
		n.args = append(n.args, "-etcd-endpoints="+endpoints)
	}
	n.args = append(n.args, args...)
	return n
}

// launch starts the daemon.
func (n *node) launch(args ...string) *daemon {
	n.t.Helper()
	return launch(n.t, n.Host, append(slices.Clone(n.args), args...)...)
}

// join starts the daemon and waits until it is ready.
func (n *node) join(args ...string) *daemon {
	n.t.Helper()
	d := n.launch(args...)
	d.ready()
	return d
}

// stateFile is a file below the daemon's -state-dir.
func (n *node) stateFile(name string) string {
	return filepath.Join(filepath.Dir(filepath.Dir(n.envFile)), "state", name)
}

// env reads subnet.env. Every line must be KEY=VALUE.
func (n *node) env() map[string]string {
	n.t.Helper()
	text, err := os.ReadFile(n.envFile)
	if err != nil {
		n.t.Fatal(err)
	}
	values := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			n.t.Fatalf("line %q of subnet.env is not KEY=VALUE", line)
		}
		values[key] = value
	}
	return values
}

// gateway is FLANNEL_SUBNET: the bridge's address and the subnet's length.
func (n *node) gateway() netip.Prefix {
	n.t.Helper()
	p, err := netip.ParsePrefix(n.env()["FLANNEL_SUBNET"])
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

func (n *node) subnet() netip.Prefix { return n.gateway().Masked() }

// leaseKey is the name of the node's lease below <prefix>/subnets/.
func (n *node) leaseKey() string {
	return strings.ReplaceAll(n.subnet().String(), "/", "-")
}

// mtu is FLANNEL_MTU.
func (n *node) mtu() int {
	n.t.Helper()
	var mtu int
	if _, err := fmt.Sscan(n.env()["FLANNEL_MTU"], &mtu); err != nil {
		n.t.Fatal(err)
	}
	return mtu
}

// addContainer makes a bridge from subnet.env's values, as Docker would, and
// one container behind it, which has the subnet's second usable address.
func (n *node) addContainer() {
	n.t.Helper()
	n.addContainerOn("docker0")
}

// addContainerOn does so on a bridge of that name.
func (n *node) addContainerOn(bridge string) {
	n.t.Helper()
	gateway := n.gateway()
	n.Bridge(bridge, gateway, n.mtu())
	addr := netip.PrefixFrom(gateway.Addr().Next(), gateway.Bits())
	n.container = n.Container(n.Name()+"-"+bridge, bridge, addr, gateway.Addr(), n.mtu())
}

// containerAddr is the address of the node's container, whether it exists or
// not.
func (n *node) containerAddr() netip.Addr { return n.gateway().Addr().Next() }

// containerAddrOf is the container's address of a family. That of IPv6 is there if the
// container has one.
func (n *node) containerAddrOf(f inet.Family) netip.Addr {
	if f == inet.IPv6 {
		return n.container.IPv6Addr().Addr()
	}
	return n.containerAddr()
}

// pair is two nodes that run, with a container each.
func (c *cluster) pair() (a, b *node, da, db *daemon) {
	c.t.Helper()
	a, b = c.node("a"), c.node("b")
	da, db = c.joinPair(a, b)
	return a, b, da, db
}

func (c *cluster) joinPair(a, b *node) (da, db *daemon) {
	c.t.Helper()
	da, db = a.join(), b.join()
	a.addContainer()
	b.addContainer()
	c.awaitPair(a, b)
	return da, db
}

// awaitPair waits until the containers of a and b reach each other. The host that
// joined last has the others as peers when it is ready. The others learn of it
// from etcd some milliseconds later.
func (c *cluster) awaitPair(a, b *node) {
	c.t.Helper()
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		eventually(c.t, "ping from "+way[0].Name()+" to "+way[1].Name(), func() error {
			return ping(c.t, way[0].container, way[1].containerAddr())
		})
	}
}

// ping sends one packet, or more with options.
func ping(t *testing.T, from *netnstest.Host, to netip.Addr, options ...string) error {
	t.Helper()
	args := append([]string{"-n", "-c", "1", "-W", "1"}, options...)
	out, err := output(t, from, "ping", append(args, to.String())...)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}
