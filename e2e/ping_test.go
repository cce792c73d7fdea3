package e2e

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// quick are the flags of a ping command that a test waits for.
var quick = []string{"-c=3", "-i=0.05", "-timeout=10s"}

func (n *node) pings(c *cluster, code int, want string, args ...string) {
	n.t.Helper()
	args = append(append([]string{"ping", "-etcd-endpoints=" + c.etcd.URL(), "-subnet-file=" + n.envFile}, quick...), args...)
	n.commandSays(code, want, args...)
}

// flannel ping, by everything that names a host, to one of ours and to one of
// the classic generation.
func TestPing(t *testing.T) {
	c := newCluster(t, "3")
	a, b := c.node("a"), c.node("b")
	a.pings(c, 1, "is the daemon running?", b.Addr().Addr().String())
	c.joinPair(a, b)
	classic := c.lab.Host("classic")
	classicSubnet := netip.MustParsePrefix("10.5.200.0/24")
	startClassic(t, classic, "-etcd="+c.etcd.URL(), "-api=3", "-subnet="+classicSubnet.String(), "-public-ip="+classic.Addr().Addr().String())
	a.awaitPeer(b.subnet(), b.Addr().Addr())
	a.awaitPeer(classicSubnet, classic.Addr().Addr())
	name, err := os.Hostname() // all hosts of a lab have it, and a's own is not meant
	if err != nil {
		t.Fatal(err)
	}
	const whole = "largest packet 1472, the largest that containers send"
	for _, to := range []string{b.subnet().String(), b.Addr().Addr().String(), b.containerAddr().String(), name,
		classicSubnet.String(), classic.Addr().Addr().String()} {
		a.pings(c, 0, "3 sent, 3 received, 0% lost; round trip", to)
		a.pings(c, 0, whole, to)
	}
	for who, why := range map[string]string{
		a.subnet().String():        "the subnet of this host",
		a.containerAddr().String(): "an address of this host",
		a.Addr().Addr().String():   "an address of this host",
		"10.5.250.3":               "no host of the overlay",
		"10.5.1.0/33":              "is not a subnet",
		"::1":                      "no host of the overlay",
		"no-such-host.invalid":     "no host of the overlay",
	} {
		a.pings(c, 1, why, who)
	}
	a.pings(c, 1, "usage: flannel ping HOST|SUBNET")
	a.pings(c, 1, "negative", "-c=-1", name)
	a.pings(c, 1, "not in 1ms to 1h", "-i=0", name)
	a.pings(c, 0, whole, "-status-addr=127.0.0.1:1", b.subnet().String()) // of the store and subnet.env alone

	// A way that lets less through than it says: of a veth, four bytes more than
	// its MTU, for a VLAN's header.
	c.lab.Router().SetMTU("port3", 1400)
	out, code := a.command("ping", "-json", "-c=2", "-i=50ms", "-timeout=10s", b.subnet().String())
	var report struct {
		Subnet        netip.Prefix
		Sent          int
		Received, MTU int
		RTTAvg        float64 `json:"rtt_avg_seconds"`
		NetworkMTU    int     `json:"network_mtu"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v in\n%s", err, out)
	}
	if code != 3 || report.Subnet != b.subnet() || report.Sent != 2 || report.Received != 2 || report.MTU < 1372 || report.MTU > 1376 ||
		report.NetworkMTU != 1472 || report.RTTAvg <= 0 {
		t.Errorf("code %d, %s", code, out)
	}
	b.Down("eth0")
	a.pings(c, 3, "no reply: no packet returns", "-timeout=0.2", b.subnet().String())
}

// Without a device of flannel's, the containers' bridge answers.
func TestPingHostGW(t *testing.T) {
	c := newCluster(t, "3")
	c.use(`{"Type": "host-gw"}`)
	a, b := c.node("a"), c.node("b")
	c.joinPair(a, b)
	a.awaitPeer(b.subnet(), b.Addr().Addr())
	a.pings(c, 0, "reply from "+b.gateway().Addr().String(), b.Addr().Addr().String())
	if out, _ := a.command("help", "ping"); !strings.Contains(out, "HOST|SUBNET") {
		t.Errorf("help ping:\n%s", out)
	}
}

// A host of both families is found by its address of either.
func TestPingByIPv6(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(familyConfig("46", `{"Type": "udp"}`))
	a, b := c.dualNode("a"), c.dualNode("b")
	a.join()
	b.join()
	a.awaitPeer(b.ipv6Subnet(), b.IPv6Addr().Addr())
	a.pings(c, 0, "PING "+b.ipv6Subnet().String(), b.IPv6Addr().Addr().String())
	a.pings(c, 0, "PING "+b.ipv6Subnet().String(), "-status-addr=127.0.0.1:1", b.IPv6Addr().Addr().String()) // by the store alone
	a.pings(c, 0, "PING "+b.subnet().String(), b.Addr().Addr().String())
}
