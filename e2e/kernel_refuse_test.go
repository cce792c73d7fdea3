package e2e

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/subnet"
)

// setOption sets a socket option of the sender's.
func (s *sender) setOption(level, name, value int) {
	s.t.Helper()
	raw, err := s.conn.(syscall.Conn).SyscallConn()
	if err == nil {
		var failed error
		err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, name, value) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// The status counts refusals of the programs with those of the daemon, under
// the same names. The programs handle only datagrams without a UDP checksum;
// TestRefusals has all others.
func TestKernelRefusals(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"kernel")
	da := a.join()
	a.addContainer()
	c.awaitKernelLease(a)
	inner := newSender(t, a.container, netip.AddrPortFrom(a.containerAddr(), servicePort))
	peer, stranger := c.lab.Host("peer"), c.lab.Host("stranger")
	c.keys.put(t, "subnets/10.5.200.0-24", fmt.Sprintf(`{"PublicIP":"%v"}`, peer.Addr().Addr()), 0)
	a.awaitPeer(netip.MustParsePrefix("10.5.200.0/24"), peer.Addr().Addr())
	fromPeer := newSender(t, peer, netip.AddrPortFrom(peer.Addr().Addr(), udpPort))
	fromStranger := newSender(t, stranger, netip.AddrPortFrom(stranger.Addr().Addr(), udpPort))
	for _, s := range []*sender{fromPeer, fromStranger} {
		s.setOption(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	}
	remote, service := netip.MustParseAddrPort("10.5.200.2:9"), netip.AddrPortFrom(a.containerAddr(), servicePort)
	const early = "early "
	sent := 0
	eventually(t, "the programs have the peer", func() error {
		da.signal(syscall.SIGSTOP)
		defer da.signal(syscall.SIGCONT)
		sent++ // the daemon delivers those before
		payload := fmt.Sprint(early, sent)
		fromPeer.send(a.Addr().Addr(), innerPacket(remote, service, []byte(payload)))
		if !inner.has(payload) {
			return errors.New("its packet does not arrive while the daemon is held")
		}
		return nil
	})
	// With the daemon held, whatever is refused is refused by the programs.
	da.signal(syscall.SIGSTOP)
	bad := []byte("must not arrive")
	const congestionExperienced = 3 // RFC 3168
	for _, test := range []struct {
		from     *sender
		tos      int
		datagram []byte
	}{
		{from: fromStranger, datagram: innerPacket(remote, service, bad)},
		{from: fromPeer, datagram: innerPacket(netip.MustParseAddrPort("10.5.201.2:9"), service, bad)},
		{from: fromPeer, datagram: innerPacket(remote, netip.MustParseAddrPort("10.5.202.2:9"), bad)},
		{from: fromPeer, tos: congestionExperienced, datagram: innerPacket(remote, service, bad)},
	} {
		test.from.setOption(unix.IPPROTO_IP, unix.IP_TOS, test.tos)
		test.from.send(a.Addr().Addr(), test.datagram)
	}
	fromPeer.setOption(unix.IPPROTO_IP, unix.IP_TOS, 0)
	fromPeer.send(a.Addr().Addr(), innerPacket(remote, service, []byte("right")))
	_, got := inner.receive()
	for strings.HasPrefix(string(got), early) { // delivered by the daemon
		_, got = inner.receive()
	}
	if string(got) != "right" {
		t.Errorf("the container received %q", got)
	}
	da.signal(syscall.SIGCONT)
	for _, reason := range []string{"unknown_outer_source", "inner_source_mismatch", "inner_destination_mismatch", "congestion_mark_lost"} {
		if n := a.drops(reason); n != 1 {
			t.Errorf("%s: %d, want 1", reason, n)
		}
	}
}

// Whoever writes to etcd may add leases of any length. The programs' table has room for
// all of the configured length; what exceeds it goes by the offloaded path, and the
// others stay in the kernel.
func TestKernelTinySubnets(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(`{"Network": "10.5.0.0/16", "SubnetLen": 18}`) // four subnets, and some spare places
	// Leases of another length, as of an earlier configuration, where no host is. They lie
	// in the first subnet, which no host gets.
	host := c.lab.Host("peer")
	peer := host.Addr().Addr()
	const early, late = 1000, 100 // 1024 places are spare
	at := netip.MustParsePrefix("10.5.0.0/30")
	add := func() (key string) {
		key = "subnets/" + subnet.Lease{Subnet: at}.Key()
		c.keys.put(t, key, fmt.Sprintf(`{"PublicIP":"%v"}`, peer), 0)
		at = netip.PrefixFrom(subnet.LastAddr(at).Next(), at.Bits())
		return key
	}
	for range early {
		add()
	}
	a, b := c.node("a", dataPathFlag+"kernel"), c.node("b", dataPathFlag+"kernel")
	c.joinPair(a, b)
	c.awaitKernelLease(a)
	c.awaitKernelLease(b)
	var keys []string
	for range late {
		keys = append(keys, add())
	}
	last := netip.PrefixFrom(at.Addr().Prev(), at.Bits()).Masked() // the programs' table takes the first ones
	reason := func(n *node, want bool) {
		t.Helper()
		const text = "76 peers of other subnet lengths by offload"
		eventually(t, fmt.Sprintf("host %s reports %q: %v", n.Name(), text, want), func() error {
			if s := n.status().Backend; s.DataPath != "kernel" || strings.Contains(s.DataPathReason, text) != want {
				return fmt.Errorf("%s: %s", s.DataPath, s.DataPathReason)
			}
			return nil
		})
	}
	reason(a, true)
	reason(b, true)
	c.awaitKernelLease(a)
	c.awaitKernelPackets(a, b)
	// The programs do not refuse a datagram of a peer that they do not know.
	inner := newSender(t, a.container, netip.AddrPortFrom(a.containerAddr(), servicePort))
	from := newSender(t, host, netip.AddrPortFrom(peer, udpPort))
	from.setOption(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
	from.send(a.Addr().Addr(), innerPacket(netip.AddrPortFrom(last.Addr().Next(), 9), netip.AddrPortFrom(a.containerAddr(), servicePort), []byte("from a left-out peer")))
	if _, got := inner.receive(); string(got) != "from a left-out peer" {
		t.Errorf("the container received %q", got)
	}
	for _, key := range keys {
		c.keys.del(t, key)
	}
	reason(a, false)
	c.awaitKernelPackets(a, b)
}

// Another backend removes the leftovers of the kernel data path.
func TestKernelThenOtherBackend(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"kernel")
	a.join().kill()
	left := pinsOf(t, a)
	if len(left) != 1 || !a.HasLink("flannel0") {
		t.Fatal("the kernel path did not stay")
	}
	c.configure(fmt.Sprintf(`{"Network": %q, "Backend": {"Type": "host-gw"}}`, network))
	a.join()
	if pins := pinsOf(t, a); slices.Contains(pins, left[0]) || a.HasLink("flannel0") {
		t.Errorf("still there: pins %v, device %v", pins, a.HasLink("flannel0"))
	}
}
