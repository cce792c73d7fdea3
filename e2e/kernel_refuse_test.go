package e2e

import (
	"errors"
	"fmt"
	"net/netip"
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
		err = errors.Join(raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, name, value) }), failed)
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
	// With the daemon held, whatever is refused is refused by the programs.
	da.signal(syscall.SIGSTOP)
	remote, service := netip.MustParseAddrPort("10.5.200.2:9"), netip.AddrPortFrom(a.containerAddr(), servicePort)
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
	if _, got := inner.receive(); string(got) != "right" {
		t.Errorf("the container received %q", got)
	}
	da.signal(syscall.SIGCONT)
	for _, reason := range []string{"unknown_outer_source", "inner_source_mismatch", "inner_destination_mismatch", "congestion_mark_lost"} {
		if n := a.drops(reason); n != 1 {
			t.Errorf("%s: %d, want 1", reason, n)
		}
	}
}

// If the programs' table cannot hold all peers, the daemon continues without
// them and publishes that.
func TestKernelGivesUp(t *testing.T) {
	c := newCluster(t, "3")
	c.configure(`{"Network": "10.5.0.0/16", "SubnetLen": 17}`) // two subnets, and some spare places
	a := c.node("a", dataPathFlag+"kernel")
	da := a.join()
	c.awaitKernelLease(a)
	// Leases of another length, as of an earlier configuration.
	peer := c.lab.Host("peer").Addr().Addr()
	const more = 1100
	for i := range more {
		s := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i / 16), byte(i % 16 * 16)}), 28)
		c.keys.put(t, "subnets/"+subnet.Lease{Subnet: s}.Key(), fmt.Sprintf(`{"PublicIP":"%v"}`, peer), 0)
	}
	da.says("give up kernel data path")
	eventually(t, "the status says so", func() error {
		if s := a.status().Backend; s.DataPath != "offload" || len(s.Peers) != more {
			return fmt.Errorf("data path %s, %d peers", s.DataPath, len(s.Peers))
		}
		return nil
	})
	if pins := pinsOf(t, a); len(pins) != 0 {
		t.Errorf("still pinned: %v", pins)
	}
	eventually(t, "the lease says so", func() error {
		if got, want := identity.ReplaceAllString(c.leases()[a.leaseKey()], ""), fmt.Sprintf(`{"PublicIP":"%v","PublicIPv6":null}`, a.Addr().Addr()); got != want {
			return fmt.Errorf("it is %s, want %s", got, want)
		}
		return nil
	})
	da.stop()
	if a.HasLink("flannel0") {
		t.Error("the device stayed, though nothing works by it")
	}
}

// Another backend removes the leftovers of the kernel data path.
func TestKernelThenOtherBackend(t *testing.T) {
	c := newCluster(t, "3")
	a := c.node("a", dataPathFlag+"kernel")
	a.join().kill()
	if len(pinsOf(t, a)) != 1 || !a.HasLink("flannel0") {
		t.Fatal("the kernel path did not stay")
	}
	c.configure(fmt.Sprintf(`{"Network": %q, "Backend": {"Type": "host-gw"}}`, network))
	a.join()
	if pins := pinsOf(t, a); len(pins) != 0 || a.HasLink("flannel0") {
		t.Errorf("still there: pins %v, device %v", pins, a.HasLink("flannel0"))
	}
}
