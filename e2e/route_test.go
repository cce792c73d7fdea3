package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

// taken waits until /readyz, the peers and doctor have all words; without words,
// until none of them has a route that takes packets.
func (n *node) taken(c *cluster, words ...string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("packets are taken: %q", words), func() error {
		peers, _ := n.command("peers")
		_, readyz, err := n.get(n.t.Context(), "/readyz")
		if err != nil {
			return err
		}
		doctor, _ := n.command("doctor", "-etcd-endpoints="+c.etcd.URL())
		for _, text := range []string{readyz, peers, doctor} {
			for _, word := range words {
				if !strings.Contains(text, word) {
					return fmt.Errorf("%q is not in\n%s", word, text)
				}
			}
			if len(words) == 0 && strings.Contains(text, "the kernel sends") {
				return errors.New(text)
			}
		}
		return nil
	})
}

// Another program's route or rule that takes the packets for a peer is named, with
// every backend: in readyz, among the peers, and by doctor.
func TestRoutesThatTakePackets(t *testing.T) {
	for _, backend := range []string{"udp", "vxlan", "host-gw", "wireguard"} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			c.configure(`{"Network": "172.16.0.0/13", "SubnetMin": "172.18.5.0", "SubnetMax": "172.18.6.0", "Backend": {"Type": "` + backend + `"}}`)
			a, b, _, _ := c.pair()
			a.taken(c)
			for _, how := range []struct{ do, undo, word string }{
				{"ip link add vpn0 type bridge && ip link set vpn0 up && ip route add 172.16.0.0/13 dev vpn0 table 52 && ip rule add pref 5270 lookup 52", "ip rule del pref 5270", "vpn0"},
				{fmt.Sprintf("ip link add br-compose type bridge && ip link set br-compose up && ip route add %v dev br-compose", netip.PrefixFrom(b.subnet().Addr(), 25)), "ip link del br-compose", "br-compose"},
			} {
				a.shell(how.do)
				if err := ping(t, a.container, b.containerAddr()); err == nil {
					t.Fatalf("%s takes no packets", how.word)
				}
				a.taken(c, how.word, b.subnet().String())
				a.shell(how.undo)
				a.taken(c)
				c.awaitPair(a, b)
			}
		})
	}
}

// A host gets no subnet that it has already, and a start that can get no other
// leaves no lease.
func TestNetworksOfTheHostAreNotLeased(t *testing.T) {
	for _, backend := range []string{"udp", "vxlan", "host-gw", "wireguard", "alloc"} {
		t.Run(backend, func(t *testing.T) {
			c := newCluster(t, "3")
			a := c.node("a")
			a.shell("ip link add eth9 type veth peer name eth8 && ip addr add 10.5.1.9/24 dev eth9 && ip link set eth9 up")
			configure := func(last string) {
				c.configure(`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.0", "SubnetMax": "` + last + `", "Backend": {"Type": "` + backend + `"}}`)
			}
			configure("10.5.1.0")
			d := a.launch()
			if code := d.wait().ExitCode(); code != 1 || !strings.Contains(d.log.String(), "10.5.1.0/24 of eth9") {
				t.Errorf("exit code %d, want 1 and a log that names eth9", code)
			}
			if left := c.leases(); len(left) > 0 {
				t.Errorf("it left the leases %v", left)
			}
			configure("10.5.2.0")
			a.join()
			if got := a.subnet().String(); got != "10.5.2.0/24" {
				t.Errorf("it got %s", got)
			}
		})
	}
}
