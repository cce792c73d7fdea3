package fastpath

import (
	"encoding/binary"
	"math/bits"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/netnstest"
)

// TestForged has a container send with the address and the ports of another's
// flow that is on the fast path.
func TestForged(t *testing.T) { eachWay(t, testForged) }

func testForged(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	forger := a.second()
	a.greet(forger, forger.Addr().Addr())
	a.greet(a.container, a.addr())
	a.serves(2)
	s := datagrams(t, a, b)
	flood(t, s, a, b)

	forger.AddAddr("lo", netip.PrefixFrom(a.addr(), 32))
	c := dial(t, forger, netip.AddrPortFrom(a.addr(), 7000), netip.AddrPortFrom(b.addr(), 7000))
	before := a.stats()
	sent, _ := a.fast(func() {
		for range 100 {
			relay(t, c, s.to) // the long way lets it pass
		}
	})
	if sent > 0 {
		t.Errorf("%d forged packets took the fast path", sent)
	}
	if n := a.stats().LongWay["unknown_container"].Packets - before.LongWay["unknown_container"].Packets; n != 100 {
		t.Errorf("%d packets are counted as of an unknown container, want 100", n)
	}
}

// TestForgedPeer has a container send to another as if it were a peer's container, whose
// packets a rule drops. They still take the long way.
func TestForgedPeer(t *testing.T) { eachWay(t, testForgedPeer) }

func testForgedPeer(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	forger := a.second()
	a.nft("table ip user { chain forward { type filter hook forward priority filter; iifname " + a.outer() + " udp dport 7000 drop; }; }")
	peer, target := netip.AddrPortFrom(b.addr(), 7000), netip.AddrPortFrom(a.addr(), 7000)
	forger.AddAddr("lo", netip.PrefixFrom(b.addr(), 32))
	// By the gateway: the bridge would pass it without the rules of IP.
	forger.AddRoute(netip.PrefixFrom(a.addr(), 32), a.gateway(), "")
	forged, from, to := dial(t, forger, peer, target), dial(t, b.container, peer, target), dial(t, a.container, target, peer)
	a.until("packets of the peer are judged", func() bool {
		write(from, 32)
		relay(t, forged, to)
		return a.stats().LongWay["not_passed_by_rules"].Packets > 64
	})
	if _, received := a.fast(func() { write(from, 32); silent(t, to) }); received > 0 {
		t.Errorf("%d packets have passed the rule by", received)
	}
}

// TestForgedFrame has a container send frames of its flow with other hardware
// addresses. The bridge would judge them by these, so none takes the fast path.
func TestForgedFrame(t *testing.T) { eachWay(t, testForgedFrame) }

func testForgedFrame(t *testing.T, direct bool) {
	a, b := newRunningBy(t, direct)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	own, gateway, other := a.mac(a.container, "eth0"), a.mac(a.Host, bridgeName), MAC{2, 0, 0, 0, 0, 1}
	inject := a.injector()
	for _, test := range []struct {
		name      string
		to, from  MAC
		delivered bool
	}{
		{"its own", gateway, own, true},
		{"another source", gateway, other, true},
		{"another destination", other, own, false},
	} {
		frame := a.frameTo(b, test.to, test.from)
		sent, _ := a.fast(func() {
			for range 20 {
				inject(frame)
				if !test.delivered {
					continue
				}
				if _, err := s.to.Read(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			if !test.delivered {
				silent(t, s.to)
			}
		})
		want := uint64(0)
		if test.name == "its own" {
			want = 20
		}
		if sent != want {
			t.Errorf("hardware addresses: %s: %d frames of 20 took the fast path, want %d", test.name, sent, want)
		}
	}
}

// injector sends frames by the container's interface.
func (h *host) injector() func(frame []byte) {
	h.t.Helper()
	return h.injectorAt(h.container, "eth0")
}

func (h *host) injectorAt(where *netnstest.Host, name string) func(frame []byte) {
	h.t.Helper()
	fd := h.packetSocket(where, name, 0)
	return func(frame []byte) {
		h.t.Helper()
		_, err := unix.Write(fd, frame)
		h.must(err)
	}
}

// packetSocket opens a socket of frames at an interface. It receives those of a
// protocol; 0: none.
func (h *host) packetSocket(where *netnstest.Host, name string, protocol uint16) (fd int) {
	h.t.Helper()
	number := bits.ReverseBytes16(protocol) // in the byte order of packets
	h.must(where.Do(func() (err error) {
		// With the protocol, it would receive from all devices until it is bound (packet(7)).
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: number})
	}))
	h.t.Cleanup(func() { h.must(unix.Close(fd)) })
	return fd
}

// frameTo is a datagram of the flow of [datagrams] to the peer's container.
func (h *host) frameTo(peer *host, to, from MAC) []byte {
	const data = "message"
	var udp []byte
	for _, v := range []uint16{7000, 7000, uint16(8 + len(data)), 0} {
		udp = binary.BigEndian.AppendUint16(udp, v)
	}
	return h.frame(peer, to, from, unix.IPPROTO_UDP, append(udp, data...))
}

// frame is an IPv4 packet from the host's container to the peer's.
func (h *host) frame(peer *host, to, from MAC, protocol byte, payload []byte) []byte {
	ip := []byte{0x45, 0, 0, byte(20 + len(payload)), 0, 0, 0, 0, 64, protocol, 0, 0}
	ip = slices.Concat(ip, h.addr().AsSlice(), peer.addr().AsSlice())
	binary.BigEndian.PutUint16(ip[10:], checksum.Finish(checksum.Add(0, ip)))
	return slices.Concat(to[:], from[:], []byte{0x08, 0x00}, ip, payload)
}
