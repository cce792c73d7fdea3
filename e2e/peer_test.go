package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// If a peer's lease gets another address, packets go to the new one at once,
// and packets from the old one are refused.
func TestPeerChangesAddress(t *testing.T) {
	for _, api := range []string{"3", "2"} {
		t.Run("api"+api, func(t *testing.T) {
			c := newCluster(t, api)
			a := c.node("a", "-probe-interval=0") // the test reads the arriving packets
			a.join()
			a.addContainer()
			subnet := netip.MustParsePrefix("10.5.200.0/24")
			remote := netip.MustParseAddr("10.5.200.2")
			var places []*netnstest.Host
			var sockets []*sender
			for _, name := range []string{"old", "new"} {
				h := c.lab.Host(name)
				places = append(places, h)
				sockets = append(sockets, newSender(t, h, netip.AddrPortFrom(h.Addr().Addr(), udpPort)))
			}
			container := newSender(t, a.container, netip.AddrPortFrom(a.containerAddr(), servicePort))
			for i, h := range places {
				c.keys.put(t, "subnets/10.5.200.0-24", fmt.Sprintf(`{"PublicIP":"%v"}`, h.Addr().Addr()), 0)
				a.awaitPeer(subnet, h.Addr().Addr())

				if err := ping(t, a.container, remote); err == nil {
					t.Fatal("somebody answered for a host that is not there")
				}
				from, packet := sockets[i].receive()
				if from != a.Addr().Addr() {
					t.Errorf("the packet for %s came from %v, want %v", h.Name(), from, a.Addr().Addr())
				}
				if len(packet) < ipv4Header || netip.AddrFrom4([4]byte(packet[16:20])) != remote {
					t.Errorf("%s received % x, want a packet for %v", h.Name(), packet, remote)
				}
				sockets[i].send(a.Addr().Addr(), innerPacket(netip.AddrPortFrom(remote, 9),
					netip.AddrPortFrom(a.containerAddr(), servicePort), []byte(h.Name())))
				if _, got := container.receive(); string(got) != h.Name() {
					t.Errorf("the container received %q, want %q", got, h.Name())
				}
			}
			if sockets[0].pending() {
				t.Error("the old address still receives packets")
			}
			before := a.drops("unknown_outer_source")
			sockets[0].send(a.Addr().Addr(), innerPacket(netip.AddrPortFrom(remote, 9),
				netip.AddrPortFrom(a.containerAddr(), servicePort), []byte("late")))
			eventually(t, "the old address is refused", func() error {
				if got := a.drops("unknown_outer_source"); got != before+1 {
					return fmt.Errorf("unknown_outer_source: %d, want %d", got, before+1)
				}
				return nil
			})
		})
	}
}

// Peers that come and go leave nothing in the daemon.
func TestPeersComeAndGo(t *testing.T) {
	c := newCluster(t, "3")
	a, b, da, _ := c.pair()
	cycle := func(rounds int) {
		for i := range rounds {
			subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(100 + i%100), 0}), 24)
			if subnet == a.subnet() || subnet == b.subnet() {
				continue
			}
			addr := netip.AddrFrom4([4]byte{192, 168, 77, byte(100 + i)})
			key := fmt.Sprintf("subnets/%v-24", subnet.Addr())
			c.keys.put(t, key, fmt.Sprintf(`{"PublicIP":"%v"}`, addr), 0)
			a.awaitPeer(subnet, addr)
			c.keys.del(t, key)
			a.awaitPeer(subnet, netip.Addr{})
		}
	}
	cycle(3) // connections that open once are open now
	before := da.openFiles()
	// The test's own status requests come and go by a connection or two; a leak
	// would be one file for each round.
	const rounds, ours = 50, 5
	cycle(rounds)
	if after := da.openFiles(); after > before+ours {
		t.Errorf("%d open files after %d joins and leaves, %d before", after, rounds, before)
	}
	c.awaitPair(a, b)
}

// Keys below <prefix>/subnets that do not parse cost no peer.
func TestBadLeaseData(t *testing.T) {
	c := newCluster(t, "3")
	a, b, _, _ := c.pair()
	for key, value := range map[string]string{
		"subnets/nonsense":        `{"PublicIP":"192.168.77.9"}`,
		"subnets/10.5.210.0-24":   `{"PublicIP":`,
		"subnets/10.5.211.1-24":   `{"PublicIP":"192.168.77.9"}`,
		"subnets/10.5.212.0-24":   `{"PublicIP":"::1"}`,
		"subnets/10.5.213.0-24":   `{"PublicIP":"192.168.77.9","BackendType":"vxlan"}`,
		"subnets/10.9.0.0-24":     `{"PublicIP":"192.168.77.9"}`,
		"subnets/10.5.214.0-24/x": ``,
	} {
		c.keys.put(t, key, value, 0)
	}
	// A good key behind the bad ones shows that all were read.
	c.keys.put(t, "subnets/10.5.220.0-24", `{"PublicIP":"192.168.77.10"}`, 0)
	a.awaitPeer(netip.MustParsePrefix("10.5.220.0/24"), netip.MustParseAddr("192.168.77.10"))
	c.awaitPair(a, b)
	for _, p := range a.status().Backend.Peers {
		if p.PublicIP == netip.MustParseAddr("192.168.77.9") {
			t.Errorf("%v is a peer", p.Subnet)
		}
	}
}
