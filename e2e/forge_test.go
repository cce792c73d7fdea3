package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// sendRaw sends an IPv4 packet as it is: a container with CAP_NET_RAW, Docker's
// default, may do that.
func sendRaw(t *testing.T, from *netnstest.Host, to netip.Addr, packet []byte) {
	t.Helper()
	err := from.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Sendto(fd, packet, 0, &unix.SockaddrInet4{Addr: to.As4()})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A container sends its own host a datagram with a peer's address as source, through
// the bridge. The host must not take it for the peer's, whatever rp_filter is.
func TestForgedDatagramOfContainer(t *testing.T) { overEachDataPath(t, testForgedDatagram) }

func testForgedDatagram(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a, b, third := c.node("a", dataPath), c.node("b", dataPath), c.node("c", dataPath)
	third.join()
	c.joinPair(a, b)
	third.addContainer()
	c.awaitPair(third, b)
	gateway := b.gateway()
	forger := b.Container("forger", "docker0", netip.PrefixFrom(b.containerAddr().Next(), gateway.Bits()), gateway.Addr(), b.mtu())
	victim := newSender(t, b.container, netip.AddrPortFrom(b.containerAddr(), servicePort))
	inner := innerPacket(netip.AddrPortFrom(a.containerAddr(), 9), netip.AddrPortFrom(b.containerAddr(), servicePort), []byte("forged"))
	outer := innerPacket(netip.AddrPortFrom(a.Addr().Addr(), udpPort), netip.AddrPortFrom(b.Addr().Addr(), udpPort), inner)
	for i, filter := range []string{"0", "2"} {
		b.Sysctl("net.ipv4.conf.all.rp_filter", filter)
		for _, link := range []string{"docker0", netnstest.Uplink} {
			b.Sysctl("net.ipv4.conf."+link+".rp_filter", filter)
		}
		sendRaw(t, forger, b.Addr().Addr(), outer)
		eventually(t, "the forged datagram is counted with rp_filter "+filter, func() error {
			if n := b.drops("wrong_interface"); n != uint64(i+1) {
				return fmt.Errorf("wrong_interface is %d, want %d", n, i+1)
			}
			return nil
		})
	}
	if victim.pending() {
		t.Error("the forged packet arrived")
	}
	// The peers themselves are not affected, also while the route to one moves to
	// another interface and back.
	c.awaitPair(a, b)
	c.awaitPair(third, b)
	const other = "other"
	c.lab.Wire(a.Host, other, b.Host, other, 0)
	a.AddRoute(netip.PrefixFrom(b.Addr().Addr(), 32), netip.Addr{}, other)
	b.AddRoute(netip.PrefixFrom(a.Addr().Addr(), 32), netip.Addr{}, other)
	c.awaitPair(a, b)
	c.awaitPair(third, b)
	a.DelRoute(netip.PrefixFrom(b.Addr().Addr(), 32), netip.Addr{}, other)
	b.DelRoute(netip.PrefixFrom(a.Addr().Addr(), 32), netip.Addr{}, other)
	c.awaitPair(a, b)
}

// Two routes of different metric lead to a peer, which sends by the one that this host
// does not send by.
func TestAsymmetricRoutes(t *testing.T) { overEachDataPath(t, testAsymmetricRoutes) }

func testAsymmetricRoutes(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPath), c.node("b", dataPath)
	c.joinPair(a, b)
	const other = "other"
	c.lab.Wire(a.Host, other, b.Host, other, 0)
	for i, h := range []*node{a, b} {
		h.AddAddr(other, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 31, 0, byte(i + 1)}), 24))
		for _, link := range []string{"all", other, netnstest.Uplink} {
			h.Sysctl("net.ipv4.conf."+link+".rp_filter", "2")
		}
	}
	// a prefers the switch, b the other link. The switch comes first: a daemon that looks
	// between two routes sees it, too.
	for _, args := range [][]string{
		{a.Netns(), b.Addr().Addr().String(), netnstest.Uplink, "1"}, {a.Netns(), b.Addr().Addr().String(), other, "2"},
		{b.Netns(), a.Addr().Addr().String(), netnstest.Uplink, "2"}, {b.Netns(), a.Addr().Addr().String(), other, "1"},
	} {
		if out, err := output(t, a.Host, "ip", "-n", args[0], "route", "add", args[1], "dev", args[2], "metric", args[3]); err != nil {
			t.Fatal(out)
		}
	}
	c.awaitPair(a, b) // until a knows its second route, it refuses datagrams
	refused := func() uint64 { return a.drops("wrong_interface") + b.drops("wrong_interface") }
	before := refused()
	for range 5 {
		c.awaitPair(a, b)
	}
	if n := refused() - before; n > 0 {
		t.Errorf("%d datagrams came by a wrong interface", n)
	}
}
