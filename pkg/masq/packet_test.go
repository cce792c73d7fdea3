package masq

import (
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// site is a host with all that its rules tell apart around it.
//
//	container 10.5.1.2 ──┐                        ┌── peer 10.5.2.2, another
//	 (of our subnet)     │ cni0 10.5.1.1          │    host's container
//	                     ├──────── host ──────────┤ flannel0 10.5.1.0
//	                     │                        │
//	                     └─ eth0 192.0.2.1 ───────┴── outside 192.0.2.2
type site struct{ host, container, peer, outside *netnstest.Host }

func newSite(t *testing.T) site {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	s := site{lab.Namespace("host"), lab.Namespace("container"), lab.Namespace("peer"), lab.Namespace("outside")}
	everywhere := prefix("0.0.0.0/0")
	s.host.Sysctl("net.ipv4.ip_forward", "1")

	lab.Wire(s.host, "cni0", s.container, "eth0", 0)
	s.host.AddAddr("cni0", prefix("10.5.1.1/24"))
	s.container.AddAddr("eth0", prefix("10.5.1.2/24"))
	s.container.AddRoute(everywhere, netip.MustParseAddr("10.5.1.1"), "")

	lab.Wire(s.host, "flannel0", s.peer, "eth0", 0)
	s.host.AddAddr("flannel0", prefix("10.5.1.0/32"))
	s.host.AddRoute(prefix("10.5.0.0/16"), netip.Addr{}, "flannel0")
	s.peer.AddAddr("eth0", prefix("10.5.2.2/24"))
	s.peer.AddRoute(prefix("10.5.1.0/32"), netip.Addr{}, "eth0")
	s.peer.AddRoute(everywhere, netip.MustParseAddr("10.5.1.0"), "")

	lab.Wire(s.host, "eth0", s.outside, "eth0", 0)
	s.host.AddAddr("eth0", prefix("192.0.2.1/24"))
	s.outside.AddAddr("eth0", prefix("192.0.2.2/24"))
	s.outside.AddRoute(prefix("10.5.0.0/16"), netip.MustParseAddr("192.0.2.1"), "")
	return s
}

// seen sends a datagram and gives the source address that its receiver sees.
func seen(t *testing.T, from *netnstest.Host, d net.Dialer, to *netnstest.Host, dst string) netip.Addr {
	t.Helper()
	target := netip.AddrPortFrom(netip.MustParseAddr(dst), 5000)
	var receiver net.PacketConn
	var err error
	if target.Addr().IsMulticast() {
		check(t, to.Do(func() error {
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			receiver, err = net.ListenMulticastUDP("udp4", eth0, net.UDPAddrFromAddrPort(target))
			return err
		}))
	} else {
		receiver, err = to.ListenPacket(t.Context(), "udp4", target.String())
		check(t, err)
	}
	defer receiver.Close()

	var sender net.Conn
	check(t, from.Do(func() (err error) {
		sender, err = d.DialContext(t.Context(), "udp4", target.String())
		return err
	}))
	defer sender.Close()
	_, err = sender.Write([]byte("hello"))
	check(t, err)

	check(t, receiver.SetReadDeadline(time.Now().Add(patience)))
	_, source, err := receiver.ReadFrom(make([]byte, 16))
	check(t, err)
	return source.(*net.UDPAddr).AddrPort().Addr().Unmap()
}

// marking makes a dialer that binds to an address of the host itself and marks
// its packets.
func marking(source string, mark int) net.Dialer {
	return option(source, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark)
	})
}

// via makes a dialer that binds to an address and to a link. Without the link, a
// multicast packet leaves by the link that has the address.
func via(link, source string) net.Dialer {
	return option(source, func(fd int) error { return unix.BindToDevice(fd, link) })
}

func option(source string, set func(fd int) error) net.Dialer {
	return net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(source), 0)),
		Control: func(_, _ string, c syscall.RawConn) (err error) {
			if e := c.Control(func(fd uintptr) { err = set(int(fd)) }); e != nil {
				return e
			}
			return err
		},
	}
}

// TestPackets sends a packet for each rule, with the rules and without.
func TestPackets(t *testing.T) {
	s := newSite(t)
	plain := net.Dialer{}
	const container, peer, outside = "10.5.1.2", "10.5.2.2", "192.0.2.2"
	tests := []struct {
		name      string
		from      *netnstest.Host
		dialer    net.Dialer
		to        *netnstest.Host
		dst       string
		own, want string // source address without the rules, and with them
	}{
		{"marked 0x4000", s.host, marking("10.5.1.1", 0x4000), s.outside, outside, "10.5.1.1", "10.5.1.1"},
		{"marked with more than 0x4000", s.host, marking("10.5.1.1", 0x14001), s.outside, outside, "10.5.1.1", "10.5.1.1"},
		{"marked otherwise", s.host, marking("10.5.1.1", 0x8000), s.outside, outside, "10.5.1.1", "192.0.2.1"},
		{"subnet to network", s.container, plain, s.peer, peer, container, container},
		{"network to subnet", s.peer, plain, s.container, container, peer, peer},
		{"outside to subnet", s.outside, plain, s.container, container, outside, outside},
		{"subnet to outside", s.container, plain, s.outside, outside, container, "192.0.2.1"},
		{"network to outside", s.peer, plain, s.outside, outside, peer, "192.0.2.1"},
		{"network to multicast", s.host, via("eth0", "10.5.1.1"), s.outside, "224.0.0.251", "10.5.1.1", "10.5.1.1"},
		{"outside to network", s.outside, plain, s.peer, peer, outside, "10.5.1.0"},
		{"outside to outside", s.outside, plain, s.host, "192.0.2.1", outside, outside},
	}
	for _, masquerade := range []bool{false, true} {
		if masquerade {
			apply(t, s.host, sample())
		}
		for _, tt := range tests {
			want := tt.own
			if masquerade {
				want = tt.want
			}
			if got := seen(t, tt.from, tt.dialer, tt.to, tt.dst); got.String() != want {
				t.Errorf("%s, masquerade %v: receiver sees %v, want %s", tt.name, masquerade, got, want)
			}
		}
	}
}

// TestForwardCounts: the counters of our chain tell that a packet came as far as
// forwarding, though another chain then drops it.
func TestForwardCounts(t *testing.T) {
	s := newSite(t)
	stop := runIn(t, s.host, sample())
	until(t, s.host, "at start", golden)
	seen(t, s.container, net.Dialer{}, s.peer, "10.5.2.2") // from N
	seen(t, s.outside, net.Dialer{}, s.container, "10.5.1.2")
	const want = `table ip flannel-10.5.0.0-16 {
	chain forward {
		type filter hook forward priority filter - 1; policy accept;
		ip saddr 10.5.0.0/16 counter packets 1 bytes 33 accept
		ip daddr 10.5.0.0/16 counter packets 1 bytes 33 accept
	}
}
`
	list := func() {
		t.Helper()
		if got := nft(t, s.host, "list", "chain", "ip", "flannel-10.5.0.0-16", "forward"); got != want {
			t.Errorf("nft lists\n%s\nwant\n%s", got, want)
		}
	}
	list()
	before := tableHandle(t, s.host)

	// Neither traffic nor another program's table causes a repair. A repair makes the
	// table anew, with the next handle. The one after the deleted rule shows that
	// Run has received all announcements before it.
	nft(t, s.host, "add table ip foreign; add chain ip foreign c")
	list()
	nft(t, s.host, "flush chain ip flannel-10.5.0.0-16 forward; delete table ip foreign")
	until(t, s.host, "after the repair", golden)
	const foreignTables, repairs = 1, 1
	if after := tableHandle(t, s.host); after-before != foreignTables+repairs {
		t.Errorf("the table's handle went from %d to %d, want one repair", before, after)
	}
	check(t, stop())
}

// tableHandle returns the kernel's handle of our table. Handles count the tables
// that were made in the namespace (nf_tables_newtable, net/netfilter/nf_tables_api.c).
func tableHandle(t *testing.T, h *netnstest.Host) int {
	t.Helper()
	list := nft(t, h, "-a", "list", "table", "ip", "flannel-10.5.0.0-16")
	found := regexp.MustCompile(`^table ip \S+ \{ # handle (\d+)\n`).FindStringSubmatch(list)
	if found == nil {
		t.Fatalf("no handle in\n%s", list)
	}
	handle, err := strconv.Atoi(found[1])
	check(t, err)
	return handle
}
