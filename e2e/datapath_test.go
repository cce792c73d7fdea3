package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// dataPaths are the values of -udp-datapath.
var dataPaths = []string{"kernel", "offload", "plain"}

const dataPathFlag = "-udp-datapath="

// outerHeaders is the length of the encapsulation: IPv4's 20 bytes and UDP's 8.
const outerHeaders = 20 + 8

// overEachDataPath runs a test once with each data path.
func overEachDataPath(t *testing.T, test func(t *testing.T, dataPath string)) {
	t.Helper()
	for _, path := range dataPaths {
		t.Run(path, func(t *testing.T) { test(t, dataPathFlag+path) })
	}
}

// Any two hosts of a cluster carry packets of any size between them, whatever
// moves the packets on either.
func TestPacketSizes(t *testing.T) {
	for _, first := range dataPaths {
		for _, second := range dataPaths {
			if first <= second { // both ways are tried
				t.Run(first+" and "+second, func(t *testing.T) {
					testPacketSizes(t, first, second)
				})
			}
		}
	}
}

func testPacketSizes(t *testing.T, first, second string) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPathFlag+first, "-ip-masq"), c.node("b", dataPathFlag+second, "-ip-masq")
	c.joinPair(a, b)
	for n, want := range map[*node]string{a: first, b: second} {
		if got := n.status().Backend.DataPath; got != want {
			t.Errorf("host %s has the data path %s, want %s", n.Name(), got, want)
		}
	}
	if want := 1500 - outerHeaders; a.mtu() != want {
		t.Fatalf("FLANNEL_MTU is %d, want %d", a.mtu(), want)
	}
	// ping's size is without the headers of inner IPv4 and ICMP.
	largest := a.mtu() - 20 - 8
	for _, way := range [][2]*node{{a, b}, {b, a}} {
		from, to := way[0], way[1].containerAddr()
		if err := ping(t, from.container, to, "-M", "do", "-s", fmt.Sprint(largest)); err != nil {
			t.Errorf("%s: the largest packet does not arrive: %v", from.Name(), err)
		}
		if err := ping(t, from.container, to, "-M", "do", "-s", fmt.Sprint(largest+1)); err == nil {
			t.Errorf("%s: a packet larger than the MTU arrived unfragmented", from.Name())
		}
		if err := ping(t, from.container, to, "-M", "dont", "-s", "9000"); err != nil {
			t.Errorf("%s: a fragmented packet does not arrive: %v", from.Name(), err)
		}
		copyBulk(t, from.container, way[1].container)

		// From outside of Network it gets an address of the host's subnet.
		outside := from.foreigner()
		if err := ping(t, outside, to, "-M", "dont", "-s", "1472"); err != nil {
			t.Errorf("%s: a masqueraded packet does not arrive, or its answer: %v", from.Name(), err)
		}
		copyBulk(t, outside, way[1].container)
	}
}

// foreigner is a container on a bridge that is not of flannel's network, with
// Ethernet's MTU.
func (n *node) foreigner() *netnstest.Host {
	n.t.Helper()
	const bridge = "foreign0"
	gateway := netip.MustParsePrefix("172.30.0.1/24")
	n.Bridge(bridge, gateway, 0)
	return n.Container(n.Name()+"-foreigner", bridge, netip.PrefixFrom(gateway.Addr().Next(), gateway.Bits()), gateway.Addr(), 0)
}

// A link on the path has a smaller MTU than the uplink. The sender of a large
// packet must get ICMP (RFC 1191), or its connection hangs.
func TestPathWithSmallerMTU(t *testing.T) { overEachDataPath(t, testPathWithSmallerMTU) }

func testPathWithSmallerMTU(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPath), c.node("b", dataPath)
	c.joinPair(a, b)
	const path = 1400
	if out, err := output(t, a.Host, "ip", "route", "add", b.Addr().Addr().String()+"/32",
		"dev", netnstest.Uplink, "mtu", "lock", fmt.Sprint(path)); err != nil {
		t.Fatal(out)
	}
	var said error
	eventually(t, "the container hears of the path's MTU", func() error {
		said = ping(t, a.container, b.containerAddr(), "-M", "do", "-s", "1400")
		if said == nil {
			t.Fatal("a packet larger than the path carries arrived unfragmented")
		}
		if !strings.Contains(said.Error(), fmt.Sprintf("mtu = %d", path-outerHeaders)) {
			return fmt.Errorf("ping says: %w", said)
		}
		return nil
	})
	if err := ping(t, a.container, b.containerAddr(), "-M", "dont", "-s", "1400"); err != nil {
		t.Errorf("a packet that may be fragmented does not arrive: %v", err)
	}
}
