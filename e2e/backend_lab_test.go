package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// ownProtocol is the rtnetlink protocol number of the program's routes.
const ownProtocol = 85

// trio is three hosts of one backend, each with a container.
type trio struct {
	*cluster
	nodes   [3]*node
	daemons [3]*daemon
}

// newTrio starts three hosts with the given Backend object.
func newTrio(t *testing.T, backend string) *trio {
	t.Helper()
	tr := &trio{cluster: newCluster(t, "3")}
	tr.use(backend)
	for i, name := range []string{"a", "b", "c"} {
		tr.nodes[i] = tr.node(name)
		tr.daemons[i] = tr.nodes[i].join()
		tr.nodes[i].addContainer()
	}
	tr.meetAll()
	return tr
}

// use makes backend the configuration's Backend object.
func (c *cluster) use(backend string) {
	c.t.Helper()
	c.configure(fmt.Sprintf(`{"Network": %q, "SubnetMax": "10.5.99.0", "Backend": %s}`, network, backend))
}

// pairs calls f with every two nodes, both ways.
func (tr *trio) pairs(f func(from, to *node)) {
	for _, from := range tr.nodes {
		for _, to := range tr.nodes {
			if from != to {
				f(from, to)
			}
		}
	}
}

func (tr *trio) meetAll() {
	tr.t.Helper()
	tr.pairs(func(from, to *node) {
		tr.t.Helper()
		eventually(tr.t, "ping from "+from.Name()+" to "+to.Name(), func() error {
			return ping(tr.t, from.container, to.containerAddr())
		})
	})
}

// transferAll sends some megabytes of TCP between every two containers.
func (tr *trio) transferAll() {
	tr.t.Helper()
	tr.pairs(func(from, to *node) {
		tr.t.Helper()
		if err := transfer(tr.t, from.container, to.container, to.containerAddr()); err != nil {
			tr.t.Errorf("from %s to %s: %v", from.Name(), to.Name(), err)
		}
	})
}

func transfer(t *testing.T, from, to *netnstest.Host, addr netip.Addr) error {
	t.Helper()
	_, err := iperf3(t, from, to, addr, "-n", "3M")
	return err
}

// iperf3 runs a client and its server, and returns what the client prints.
func iperf3(t *testing.T, from, to *netnstest.Host, addr netip.Addr, args ...string) (out string, err error) {
	t.Helper()
	server := to.Command(t.Context(), "iperf3", "-s", "-1", "--forceflush")
	log := &logBuffer{}
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "iperf3 listens", func() error {
		if !strings.Contains(log.String(), "listening") {
			return fmt.Errorf("it says %q", log.String())
		}
		return nil
	})
	out, err = output(t, from, "iperf3", append([]string{"-c", addr.String()}, args...)...)
	if err != nil {
		err = fmt.Errorf("iperf3: %w\n%s", err, out)
		_ = server.Process.Kill() // it waits for a client that has failed
	}
	_ = server.Wait()
	return out, err
}

// undisturbed pings from the first container to the second, a hundred times a
// second, while f runs, and fails the test if a packet is lost.
func (tr *trio) undisturbed(what string, f func()) {
	tr.t.Helper()
	cmd := tr.nodes[0].container.Command(tr.t.Context(), "ping", "-n", "-i", "0.01", "-W", "5", tr.nodes[1].containerAddr().String())
	log := &logBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	f()
	before := strings.Count(log.String(), "bytes from")
	eventually(tr.t, "pings go on", func() error {
		if strings.Count(log.String(), "bytes from") < before+20 {
			return fmt.Errorf("%d answers", before)
		}
		return nil
	})
	if err := cmd.Process.Signal(unix.SIGINT); err != nil {
		tr.t.Fatal(err)
	}
	_ = cmd.Wait()
	sent, received := -1, -1
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "packets transmitted") {
			fmt.Sscanf(line, "%d packets transmitted, %d received", &sent, &received)
		}
	}
	// The last one may be on its way.
	if sent < 0 || received < sent-1 {
		tr.t.Errorf("%s: %d of %d packets arrived", what, received, sent)
	}
}

// fakePeer writes a lease without a host to the store.
type fakePeer struct {
	subnet netip.Prefix
	value  string // of the lease
}

// key is the lease's name, relative to the prefix.
func (f fakePeer) key() string {
	return "subnets/" + strings.ReplaceAll(f.subnet.String(), "/", "-")
}

// kernelPeers reads the kernel's handling of packets to each peer of a node:
// subnet → description.
type kernelPeers func(n *node) (map[string]string, error)

// agree waits until the kernel of n matches the store exactly.
func (tr *trio) agree(n *node, read kernelPeers, expected func(key, value string) (subnet, what string)) {
	tr.t.Helper()
	want := make(map[string]string)
	for key, value := range tr.leases() {
		if subnet, what := expected(key, value); subnet != n.subnet().String() {
			want[subnet] = what
		}
	}
	eventually(tr.t, "kernel of "+n.Name()+" agrees with the store", func() error {
		have, err := read(n)
		if err == nil && !maps.Equal(have, want) {
			err = fmt.Errorf("the kernel has %v\nthe store has %v", have, want)
		}
		return err
	})
}

// churn makes a hundred random changes of leases that others hold.
func (tr *trio) churn(value func(random int) string) {
	tr.t.Helper()
	seed := rand.Uint64()
	tr.t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	held := make(map[string]bool)
	for range 100 {
		key := fmt.Sprintf("subnets/10.5.%d.0-24", 120+random.IntN(20))
		if held[key] && random.IntN(3) == 0 {
			tr.keys.del(tr.t, key)
			held[key] = false
			continue
		}
		tr.keys.put(tr.t, key, value(random.IntN(100)), 0)
		held[key] = true
	}
}

// leaseValue has the fields of a lease's JSON that the tests read.
type leaseValue struct {
	PublicIP    netip.Addr
	BackendData struct {
		VtepMAC   string
		PublicKey string
	}
}

// parseLease gives the subnet of a lease's key and its value.
func parseLease(t *testing.T, key, value string) (netip.Prefix, leaseValue) {
	t.Helper()
	addr, bits, _ := strings.Cut(key, "-")
	n, err := strconv.Atoi(bits)
	if err != nil {
		t.Fatalf("lease key %q: %v", key, err)
	}
	var v leaseValue
	if err := json.Unmarshal([]byte(value), &v); err != nil {
		t.Fatalf("lease %s=%s: %v", key, value, err)
	}
	return netip.PrefixFrom(netip.MustParseAddr(addr), n), v
}

// ownRoutes are the program's routes on a host: destination → next hop, device
// and flags.
func ownRoutes(n *node) (map[string]string, error) {
	routes, err := n.Netlink().RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: ownProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, r := range routes {
		link, err := n.Netlink().LinkByIndex(r.LinkIndex)
		if err != nil {
			return nil, err
		}
		found[r.Dst.String()] = strings.TrimSpace(fmt.Sprintf("via %v dev %s %s", r.Gw, link.Attrs().Name, strings.Join(r.ListFlags(), " ")))
	}
	return found, nil
}

// restartWhileALeaseEnds checks that a start makes up for changes during the
// stop. staysUp: packets to that peer leave until then.
func (tr *trio) restartWhileALeaseEnds(peer fakePeer, read kernelPeers, staysUp bool) {
	tr.t.Helper()
	n := tr.nodes[2]
	tr.keys.put(tr.t, peer.key(), peer.value, 0)
	subnet := peer.subnet.String()
	has := func(want bool) {
		tr.t.Helper()
		eventually(tr.t, fmt.Sprintf("peer %s is known: %v", subnet, want), func() error {
			have, err := read(n)
			if _, known := have[subnet]; err == nil && known != want {
				err = fmt.Errorf("the kernel has %v", have)
			}
			return err
		})
	}
	has(true)
	tr.daemons[2].stop()
	if staysUp {
		has(true)
	}
	tr.keys.del(tr.t, peer.key())
	tr.daemons[2] = n.join()
	has(false)
}

// flap takes a host's uplink away for a moment, and with it its default route.
func (tr *trio) flap(n *node) {
	tr.t.Helper()
	n.Down(netnstest.Uplink)
	n.Up(netnstest.Uplink)
	n.AddRoute(netip.PrefixFrom(netip.IPv4Unspecified(), 0), tr.lab.Router().Addr().Addr(), "")
}
