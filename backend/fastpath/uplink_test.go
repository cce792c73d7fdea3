package fastpath

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// The second uplink of two hosts.
const secondUplink = "eth1"

// wireAgain gives two hosts a second uplink. Both have a route to a third host there.
func wireAgain(lab *netnstest.Lab, a, b *host) {
	lab.Wire(a.Host, secondUplink, b.Host, secondUplink, 0)
	a.AddAddr(secondUplink, netip.MustParsePrefix("192.168.78.1/24"))
	b.AddAddr(secondUplink, netip.MustParsePrefix("192.168.78.2/24"))
	for h, via := range map[*host]string{a: "192.168.78.2", b: "192.168.78.1"} {
		h.AddRoute(netip.MustParsePrefix("10.5.9.0/24"), netip.MustParseAddr(via), secondUplink)
	}
}

// move has a host send to its peer by the second uplink.
func (h *host) move(peer *host, via string) {
	h.Exec("ip route replace " + peer.subnet.String() + " via " + via + " dev " + secondUplink)
}

// TestTwoUplinks moves a flow from one uplink to the other, first one direction of it.
// While a packet comes by an interface that its answer does not leave by, it takes the
// long way, which the host's reverse path filter judges.
func TestTwoUplinks(t *testing.T) {
	lab, a, b := newHostsBy(t, true)
	wireAgain(lab, a, b)
	runBoth(t, a, b)
	s := datagrams(t, b, a)
	flood(t, s, b, a)

	b.move(a, "192.168.78.1")
	b.until("the flow is sent by the other uplink", func() bool {
		before := a.stats().LongWay["route_or_size"].Packets
		relay(t, s.from, s.to)
		return a.stats().LongWay["route_or_size"].Packets > before
	})
	if _, received := a.fast(func() {
		for range 100 {
			relay(t, s.from, s.to)
		}
	}); received > 0 {
		t.Errorf("%d packets were taken from an uplink that is not on their way back", received)
	}
	a.Sysctl("net.ipv4.conf."+secondUplink+".rp_filter", "1")
	if _, err := s.from.Write([]byte("message")); err != nil {
		t.Fatal(err)
	}
	silent(t, s.to)

	a.move(b, "192.168.78.2")
	flood(t, s, b, a)
	flood(t, stream{t, s.to, s.from}, a, b)
}

// TestUplinkAppears has a route lead through another interface, which is served from
// then on.
func TestUplinkAppears(t *testing.T) {
	lab, a, b := newHostsBy(t, true)
	runBoth(t, a, b)
	flood(t, datagrams(t, b, a), b, a)
	wireAgain(lab, a, b)
	a.move(b, "192.168.78.2")
	b.move(a, "192.168.78.1")
	flood(t, datagramsAt(t, b, a, 7001), b, a)
}

// TestUplinkKinds has routes of the network lead through interfaces that cannot be
// served. The uplink beside them is.
func TestUplinkKinds(t *testing.T) {
	_, a, _ := newHostsBy(t, true)
	for _, args := range []string{
		"tuntap add dev tun7 mode tun", "link set tun7 up", "route add 10.5.7.0/24 dev tun7",
		"link add ifb8 type ifb", "link set ifb8 up", "route add 10.5.8.0/24 dev ifb8",
		"link add br9 type bridge", "link add veth9 type veth peer name peer9", "link set veth9 master br9",
		"link set veth9 up", "route add 10.5.9.0/24 dev veth9",
	} {
		a.Exec("ip " + args)
	}
	a.run()
	a.greet(a.container, a.addr())
	a.serves(1)
	want := []string{"uplink ifb8 is of kind ifb", "uplink tun7 has no Ethernet header", "uplink veth9 belongs to bridge br9"}
	a.until("the status has the reasons", func() bool { return slices.Equal(a.path.Status().Off, want) })
	a.Exec("ip link set eth0 down") // which takes its routes away
	a.serves(0)
}

// TestUplinkOfOthers puts filters of others at an uplink. Packets meet what is at its
// egress on either way.
func TestUplinkOfOthers(t *testing.T) {
	a, b := newRunningBy(t, true)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	a.Exec("tc qdisc add dev eth0 root tbf rate 100mbit burst 100k latency 50ms")
	a.addClsact(netnstest.Uplink)
	a.Exec("tc filter add dev eth0 egress bpf direct-action object-pinned " + pinnedProgram(t, ebpf.SchedCLS, 2)) // TC_ACT_SHOT
	if sent, _ := a.fast(func() { write(s.from, 8); silent(t, s.to) }); sent != 8 {
		t.Errorf("%d packets of 8 took the fast path", sent)
	}
	a.Exec("tc filter del dev eth0 egress")
	flood(t, s, a, b)
	a.serves(1)
	a.Exec("tc filter add dev eth0 ingress bpf direct-action object-pinned " + pinnedProgram(t, ebpf.SchedCLS, 2)) // TC_ACT_SHOT
	a.serves(0)
	a.until("the status names the filter", func() bool { return strings.Join(a.path.Status().Off, "") == "tc filter at uplink eth0" })
	if _, err := s.to.Write([]byte("message")); err != nil {
		t.Fatal(err)
	}
	silent(t, s.from)
	a.Exec("tc filter del dev eth0 ingress")
	a.serves(1)
}

// TestUplinkFrames sends frames of a flow on the fast path that are not for this host,
// or not for this interface of it.
func TestUplinkFrames(t *testing.T) {
	a, b := newRunningBy(t, true)
	s := datagrams(t, b, a)
	flood(t, s, b, a)
	uplink, err := a.Netlink().LinkByName(netnstest.Uplink)
	a.must(err)
	a.must(a.Netlink().SetPromiscOn(uplink))
	inject := b.injectorAt(b.Host, netnstest.Uplink)
	for _, test := range []struct {
		name  string
		to    MAC
		vlan  bool
		takes uint64
	}{
		{"for this host", a.mac(a.Host, netnstest.Uplink), false, 20},
		{"for another host", MAC{2, 0, 0, 0, 0, 1}, false, 0},
		{"of a VLAN", a.mac(a.Host, netnstest.Uplink), true, 0},
	} {
		frame := b.frameTo(a, test.to, b.mac(b.Host, netnstest.Uplink))
		if test.vlan {
			const macs = 12
			frame = slices.Insert(frame, macs, binary.BigEndian.AppendUint32(nil, unix.ETH_P_8021Q<<16|5)...)
		}
		_, received := a.fast(func() {
			for range 20 {
				inject(frame)
			}
			for range test.takes {
				if _, err := s.to.Read(make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			}
			silent(t, s.to)
		})
		if received != test.takes {
			t.Errorf("%s: %d frames of 20 took the fast path, want %d", test.name, received, test.takes)
		}
	}
}

// TestUplinkNeighbour has the kernel verify the address of a peer that only the fast
// path sends to.
func TestUplinkNeighbour(t *testing.T) {
	a, b := newRunningBy(t, true)
	s := datagrams(t, a, b)
	flood(t, s, a, b)
	peer, uplink := b.mac(b.Host, netnstest.Uplink), a.index(netnstest.Uplink)
	stale := netlink.Neigh{LinkIndex: uplink, IP: b.Addr().Addr().AsSlice(), State: netlink.NUD_STALE, HardwareAddr: peer[:]}
	a.must(a.Netlink().NeighSet(&stale))
	if sent, _ := a.fast(func() { relay(t, s.from, s.to) }); sent != 1 {
		t.Fatalf("%d packets of 1 took the fast path", sent)
	}
	all, err := a.Netlink().NeighList(uplink, unix.AF_INET)
	a.must(err)
	if !slices.ContainsFunc(all, func(n netlink.Neigh) bool { return n.IP.Equal(stale.IP) && n.State != netlink.NUD_STALE }) {
		t.Errorf("the kernel does not verify %v: %v", stale.IP, all)
	}
}

// TestNetworksAtOneUplink has two networks without tunnels on one host.
func TestNetworksAtOneUplink(t *testing.T) {
	for name, running := range map[string]func(t *testing.T, direct bool) (a, b *host){
		"tcx, if the kernel has it": newRunningBy, "filters of tc": newRunningWithFilters,
	} {
		t.Run(name, func(t *testing.T) { testNetworksAtOneUplink(t, running) })
	}
}

func testNetworksAtOneUplink(t *testing.T, running func(t *testing.T, direct bool) (a, b *host)) {
	a, b := running(t, true)
	s := datagrams(t, a, b)
	a.Bridge("docker1", netip.MustParsePrefix("10.6.1.1/24"), 0)
	c := a.Container("a9", "docker1", netip.MustParsePrefix("10.6.1.2/24"), netip.MustParseAddr("10.6.1.1"), 0)
	a.AddRoute(netip.MustParsePrefix("10.6.2.0/24"), b.Addr().Addr(), netnstest.Uplink)
	config := a.config()
	config.Name, config.Network, config.Subnet = "10.6.0.0-16", netip.MustParsePrefix("10.6.0.0/16"), netip.MustParsePrefix("10.6.1.0/24")
	config.PinDir += "-second"
	a.runPath(config)
	greet := dial(t, c, netip.MustParseAddrPort("10.6.1.2:0"), netip.MustParseAddrPort("10.6.1.1:9"))
	if _, err := greet.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	a.until("both networks serve their containers", func() bool {
		first, second := a.path.Status(), a.others[0].Status()
		return first.Containers == 1 && second.Containers == 1 && len(first.Off)+len(second.Off) == 0
	})
	flood(t, s, a, b)
}

// TestDirect has names of its own for each network and each network namespace.
func TestDirect(t *testing.T) {
	_, a, b := newHostsBy(t, true)
	seen := make(map[string]bool)
	for _, h := range []*host{a, b} {
		for _, network := range []string{"10.5.0.0/16", "10.6.0.0/16"} {
			h.must(h.Do(func() error {
				c, err := Direct(netip.MustParsePrefix(network))
				seen[c.PinDir] = true
				if strings.Contains(c.PinDir, ".") {
					t.Errorf("a bpffs takes no name as in %s", c.PinDir)
				}
				return err
			}))
		}
	}
	if len(seen) != 4 {
		t.Errorf("two networks in two namespaces have the directories %v", seen)
	}
}
