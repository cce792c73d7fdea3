package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
)

// servicePort is where the container under attack listens.
const servicePort = 7000

// TestRefusals sends packets that a host must refuse. Each is counted by its
// reason and never reaches the container. The daemon keeps running, and good
// packets still arrive.
func TestRefusals(t *testing.T) { overEachDataPath(t, testRefusals) }

func testRefusals(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a := c.node("a", dataPath)
	a.join()
	a.addContainer()
	inner := newSender(t, a.container, netip.AddrPortFrom(a.containerAddr(), servicePort))

	// A peer of ours that is played by this test, and a host that is no peer.
	peer, stranger := c.lab.Host("peer"), c.lab.Host("stranger")
	peerSubnet := netip.MustParsePrefix("10.5.200.0/24")
	c.keys.put(t, "subnets/10.5.200.0-24", fmt.Sprintf(`{"PublicIP":"%v"}`, peer.Addr().Addr()), 0)
	a.awaitPeer(peerSubnet, peer.Addr().Addr())
	fromPeer := newSender(t, peer, netip.AddrPortFrom(peer.Addr().Addr(), udpPort))
	fromStranger := newSender(t, stranger, netip.AddrPortFrom(stranger.Addr().Addr(), udpPort))

	var (
		remote  = netip.MustParseAddrPort("10.5.200.2:9")
		service = netip.AddrPortFrom(a.containerAddr(), servicePort)
		bad     = []byte("must not arrive")
		right   = innerPacket(remote, service, bad)
	)
	edit := func(change func([]byte) []byte) []byte { return change(slices.Clone(right)) }
	for _, test := range []struct {
		name, reason string
		from         *sender
		datagram     []byte
	}{
		{"outer source is no host", "unknown_outer_source", fromStranger, right},
		{"inner source is of another subnet", "inner_source_mismatch", fromPeer,
			innerPacket(netip.MustParseAddrPort("10.5.201.2:9"), service, bad)},
		{"inner source is outside of the network", "inner_source_mismatch", fromPeer,
			innerPacket(netip.MustParseAddrPort("8.8.8.8:53"), service, bad)},
		{"inner source is the receiver's own", "inner_source_mismatch", fromPeer,
			innerPacket(netip.AddrPortFrom(a.gateway().Addr(), 9), service, bad)},
		{"inner destination is of another host", "inner_destination_mismatch", fromPeer,
			innerPacket(remote, netip.MustParseAddrPort("10.5.202.2:9"), bad)},
		{"inner destination is outside of the network", "inner_destination_mismatch", fromPeer,
			innerPacket(remote, netip.AddrPortFrom(stranger.Addr().Addr(), 9), bad)},
		{"shorter than a header", "malformed", fromPeer, right[:ipv4Header-1]},
		{"cut", "malformed", fromPeer, right[:len(right)-1]},
		{"with a tail", "malformed", fromPeer, append(slices.Clone(right), 0)},
		{"oversize, most of it tail", "malformed", fromPeer, append(slices.Clone(right), make([]byte, 60_000)...)},
		{"total length of zero", "malformed", fromPeer, edit(func(p []byte) []byte {
			binary.BigEndian.PutUint16(p[2:], 0)
			return p
		})},
		{"total length beyond the datagram", "malformed", fromPeer, edit(func(p []byte) []byte {
			binary.BigEndian.PutUint16(p[2:], 0xffff)
			return p
		})},
		{"header length beyond the packet", "malformed", fromPeer, edit(func(p []byte) []byte {
			p[0] = 4<<4 | 15
			return p
		})},
		{"header length below the least", "malformed", fromPeer, edit(func(p []byte) []byte {
			p[0] = 4<<4 | 4
			return p
		})},
		{"IPv6", "malformed", fromPeer, edit(func(p []byte) []byte {
			p[0] = 6 << 4
			return p
		})},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := a.drops(test.reason)
			test.from.send(a.Addr().Addr(), test.datagram)
			eventually(t, "the refusal is counted", func() error {
				if got := a.drops(test.reason); got != before+1 {
					return fmt.Errorf("%s: %d, want %d", test.reason, got, before+1)
				}
				return nil
			})
			// Packets of one sender arrive in order: had the bad one been let in,
			// it would come first.
			good := []byte("this is right")
			fromPeer.send(a.Addr().Addr(), innerPacket(remote, service, good))
			if _, got := inner.receive(); string(got) != string(good) {
				t.Errorf("the container received %q, want %q", got, good)
			}
		})
	}
}

// An empty datagram has nothing to refuse, and must not be read as the end.
func TestEmptyDatagram(t *testing.T) { overEachDataPath(t, testEmptyDatagram) }

func testEmptyDatagram(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a, b := c.node("a", dataPath), c.node("b", dataPath)
	c.joinPair(a, b)
	stranger := c.lab.Host("stranger")
	s := newSender(t, stranger, netip.AddrPortFrom(stranger.Addr().Addr(), 0))
	for range 3 {
		s.send(a.Addr().Addr(), nil)
	}
	c.awaitPair(a, b)
}

// A correct datagram above the tunnel's MTU comes from a host with a larger
// MTU. It may arrive or be counted; the next one must arrive.
func TestOversizeDatagram(t *testing.T) { overEachDataPath(t, testOversizeDatagram) }

func testOversizeDatagram(t *testing.T, dataPath string) {
	c := newCluster(t, "3")
	a := c.node("a", dataPath)
	a.join()
	a.addContainer()
	inner := newSender(t, a.container, netip.AddrPortFrom(a.containerAddr(), servicePort))
	peer := c.lab.Host("peer")
	c.keys.put(t, "subnets/10.5.200.0-24", fmt.Sprintf(`{"PublicIP":"%v"}`, peer.Addr().Addr()), 0)
	a.awaitPeer(netip.MustParsePrefix("10.5.200.0/24"), peer.Addr().Addr())
	s := newSender(t, peer, netip.AddrPortFrom(peer.Addr().Addr(), udpPort))

	remote := netip.MustParseAddrPort("10.5.200.2:9")
	service := netip.AddrPortFrom(a.containerAddr(), servicePort)
	for _, size := range []int{1473, 2000, 9000, 65_000} {
		s.send(a.Addr().Addr(), innerPacket(remote, service, make([]byte, size-ipv4Header-udpHeader)))
	}
	last := []byte("last")
	s.send(a.Addr().Addr(), innerPacket(remote, service, last))
	for {
		_, got := inner.receive()
		if string(got) == string(last) {
			break
		}
		if len(got) != 1473-ipv4Header-udpHeader && len(got) != 2000-ipv4Header-udpHeader &&
			len(got) != 9000-ipv4Header-udpHeader && len(got) != 65_000-ipv4Header-udpHeader {
			t.Fatalf("the container received %d bytes, which nobody sent", len(got))
		}
	}
}
