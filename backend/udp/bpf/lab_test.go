package bpf

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

const (
	port       = 8285
	deviceName = "flannel0"
	deviceMTU  = 1500 - 28
)

// networks contain all hosts' subnets, by family.
var networks = [2]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")}

// families are those of a test's packets and datagrams.
type families struct{ inner, outer inet.Family }

func (f families) String() string { return fmt.Sprintf("%v in %v", f.inner, f.outer) }

// overhead is the length of the outer headers.
func (f families) overhead() int { return f.outer.HeaderLen() + 8 }

// mtu is the device's.
func (f families) mtu() int { return 1500 - f.overhead() }

// laterFamilies are all but IPv4 in IPv4, which most tests have.
var laterFamilies = []families{{inet.IPv6, inet.IPv4}, {inet.IPv6, inet.IPv6}, {inet.IPv4, inet.IPv6}}

// eachFamilies runs a test with IPv4 in IPv4, and with the other families.
func eachFamilies(t *testing.T, test func(t *testing.T, f families)) {
	for _, f := range append([]families{{}}, laterFamilies...) {
		t.Run(f.String(), func(t *testing.T) {
			f.require(t)
			test(t, f)
		})
	}
}

// require skips the test if the kernel does not unwrap a packet of the other family.
func (f families) require(t *testing.T) {
	t.Helper()
	netnstest.Require(t)
	mixed, err := UnwrapsMixed()
	if err != nil {
		t.Fatal(err)
	}
	if f.inner != f.outer && !mixed {
		t.Skip("this kernel has no BPF_F_ADJ_ROOM_DECAP_L3_* (before Linux 6.3)")
	}
}

// host runs a minimal user-space side of the udp backend, and after attach the kernel
// path.
type host struct {
	*netnstest.Host
	families
	t      *testing.T
	subnet netip.Prefix
	device int // index
	tun    *os.File
	socket *net.UDPConn
	path   *Path
	// old: the path uses only what Linux 5.10 has.
	old bool
	// uplinks are those of attachTo.
	uplinks [MaxUplinks]uint32

	// sent and received count the packets that user space handled.
	sent, received atomic.Int64

	mu    sync.Mutex
	peers []Peer
	// odd, if set, receives the socket's packets in place of the TUN, oddOut the TUN's
	// in place of the socket.
	odd, oddOut func(packet []byte)
}

// newHost makes a host with a subnet, whose device has an address of it.
func newHost(t *testing.T, lab *netnstest.Lab, f families, name string, number int) *host {
	t.Helper()
	h := &host{families: f, t: t}
	if f == (families{}) {
		h.Host = lab.Host(name)
	} else {
		h.Host = lab.DualHost(name)
		h.Sysctl("net.ipv6.conf.all.forwarding", "1")
	}
	if f.inner == inet.IPv4 {
		h.subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(number)}), 24)
	} else {
		h.subnet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 7: byte(number)}), 64)
	}
	h.must(h.Do(h.open))
	h.SetMTU(deviceName, f.mtu())
	h.Up(deviceName)
	h.AddAddr(deviceName, netip.PrefixFrom(h.inner(), f.inner.Bits()))
	h.AddRoute(networks[f.inner], netip.Addr{}, deviceName)
	h.Sysctl("net.ipv4.conf.all.rp_filter", "0")
	var wg sync.WaitGroup
	wg.Go(h.carryOut)
	wg.Go(h.carryIn)
	t.Cleanup(func() {
		for _, err := range []error{h.tun.Close(), h.socket.Close()} {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, net.ErrClosed) {
				h.must(err)
			}
		}
		wg.Wait()
	})
	return h
}

// newHosts makes hosts a, b, … that know each other, on one switch.
func newHosts(t *testing.T, kernel ...bool) (*netnstest.Lab, []*host) {
	t.Helper()
	return newHostsBy(t, false, kernel...)
}

// newHostsBy is newHosts, old: with only what Linux 5.10 has.
func newHostsBy(t *testing.T, old bool, kernel ...bool) (*netnstest.Lab, []*host) {
	t.Helper()
	return newHostsOf(t, families{}, old, kernel...)
}

// newHostsOf is newHostsBy with packets and datagrams of some families.
func newHostsOf(t *testing.T, f families, old bool, kernel ...bool) (*netnstest.Lab, []*host) {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	var hosts []*host
	var peers []Peer
	for i, k := range kernel {
		h := newHost(t, lab, f, string(rune('a'+i)), i+1)
		h.old = old
		hosts = append(hosts, h)
		peers = append(peers, peerAt(h.subnet, h.local(), k))
	}
	for i, h := range hosts {
		var others []Peer
		for j, p := range peers {
			if i != j {
				others = append(others, p)
			}
		}
		h.peers = others
		if kernel[i] {
			h.attach(h.config(), others)
		}
	}
	return lab, hosts
}

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("host %s: %v", h.Name(), err)
	}
}

// inner is the host's address in its subnet.
func (h *host) inner() netip.Addr {
	if h.families.inner == inet.IPv4 {
		return h.subnet.Addr().Next()
	}
	b := h.subnet.Addr().As16()
	b[15] = 0xff // bridges and containers have the first ones
	return netip.AddrFrom16(b)
}

// local is the host's address on the underlay.
func (h *host) local() netip.Addr {
	if h.outer == inet.IPv4 {
		return h.Addr().Addr()
	}
	return h.IPv6Addr().Addr()
}

func (h *host) config() Config {
	c := Config{Device: h.device, Port: port, MTU: h.mtu(), MaxPeers: [2]int{16384, 16384}, old: h.old}
	c.Locals[h.outer], c.Subnets[h.families.inner] = h.local(), h.subnet
	return c
}

// peerAt is a peer at an address on the underlay.
func peerAt(subnet netip.Prefix, addr netip.Addr, kernel bool) Peer {
	f := inet.Of(addr)
	p := Peer{Subnet: subnet, Outer: f, Kernel: kernel}
	p.Addrs[f] = addr
	return p
}

func (h *host) link(name string) int {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	return l.Attrs().Index
}

// attach loads the path and attaches it to the uplink.
func (h *host) attach(c Config, peers []Peer) {
	h.t.Helper()
	h.load(c)
	h.setUplinks(netnstest.Uplink)
	h.set(peers...)
	h.attachTo(netnstest.Uplink)
}

func (h *host) load(c Config) {
	h.t.Helper()
	h.must(h.Do(func() (err error) {
		h.path, err = Load(c)
		return err
	}))
	p := h.path
	h.t.Cleanup(func() { h.must(p.Close()) })
}

// remove removes pins; that of filters is done inside their namespace.
func (h *host) remove(dir string) {
	h.t.Helper()
	h.must(h.Do(func() error { return Remove(dir) }))
}

// attachTo attaches the path to uplinks, by which all peers' datagrams may arrive.
func (h *host) attachTo(uplinks ...string) {
	h.t.Helper()
	var indexes []int
	for _, name := range uplinks {
		indexes = append(indexes, h.link(name))
	}
	h.setUplinks(uplinks...)
	h.set(h.path.known()...)
	h.must(h.Do(func() error { return h.path.Attach(indexes) }))
}

// setUplinks sets the interfaces of later calls of set and reached.
func (h *host) setUplinks(uplinks ...string) {
	h.t.Helper()
	h.uplinks = [MaxUplinks]uint32{}
	for i, name := range uplinks {
		h.uplinks[i] = uint32(h.link(name))
	}
}

// known returns the table of Set and Apply, in no order.
func (p *Path) known() []Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Peer, 0, len(p.table))
	for subnet, e := range p.table {
		all = append(all, e.peer(subnet))
	}
	return all
}

// set sets the path's peers.
func (h *host) set(peers ...Peer) {
	h.t.Helper()
	h.must(h.path.Set(h.reached(peers...)))
}

// reached returns peers whose datagrams may arrive by the uplinks of attachTo.
func (h *host) reached(peers ...Peer) []Peer {
	for i := range peers {
		peers[i].Uplinks[h.outer] = h.uplinks
	}
	return peers
}

func (h *host) drops() map[string]uint64 {
	h.t.Helper()
	_, drops, err := h.path.Stats()
	h.must(err)
	return drops
}

func (h *host) statsOf(subnet netip.Prefix) PeerStats {
	h.t.Helper()
	peers, _, err := h.path.Stats()
	h.must(err)
	for _, p := range peers {
		if p.Subnet == subnet {
			return p
		}
	}
	h.t.Fatalf("host %s: no statistics of %v", h.Name(), subnet)
	return PeerStats{}
}

// open makes the TUN and the socket; it runs inside the host.
func (h *host) open() error {
	fd, err := netnstest.OpenTUN(deviceName)
	if err != nil {
		return err
	}
	h.tun = fd
	i, err := net.InterfaceByName(deviceName)
	if err != nil {
		return err
	}
	h.device = i.Index
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
			if h.outer == inet.IPv4 {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
				return
			}
			err = errors.Join(err,
				unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IP_PMTUDISC_DO),
				unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1))
		}), err)
	}}
	s, err := lc.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(h.local(), port).String())
	if err != nil {
		return err
	}
	h.socket = s.(*net.UDPConn)
	return nil
}

// carryOut sends the TUN's packets to the peer of their destination.
func (h *host) carryOut() {
	packet := make([]byte, 1<<16)
	for {
		n, err := h.tun.Read(packet)
		if err != nil {
			return
		}
		to := destinationOf(packet[:n])
		if inet.Of(to) != h.families.inner || to.IsMulticast() {
			continue
		}
		h.sent.Add(1)
		h.mu.Lock()
		if h.oddOut != nil {
			h.oddOut(packet[:n])
			h.mu.Unlock()
			continue
		}
		for _, p := range h.peers {
			if p.Subnet.Contains(to) {
				// A failed send is a lost packet.
				_, _ = h.socket.WriteToUDPAddrPort(packet[:n], netip.AddrPortFrom(p.Addrs[p.Outer], port))
				break
			}
		}
		h.mu.Unlock()
	}
}

// destinationOf returns the destination of a packet.
func destinationOf(packet []byte) netip.Addr {
	if packet[0]>>4 == 4 {
		return netip.AddrFrom4([4]byte(packet[16:20]))
	}
	return netip.AddrFrom16([16]byte(packet[24:40]))
}

// carryIn writes the socket's packets to the TUN. As in the classic receiver, its buffer
// cuts larger datagrams.
func (h *host) carryIn() {
	packet := make([]byte, h.mtu())
	for {
		n, err := h.socket.Read(packet)
		if err != nil {
			return
		}
		h.received.Add(1)
		h.mu.Lock()
		odd := h.odd
		h.mu.Unlock()
		if odd != nil {
			odd(packet[:n])
		} else {
			_, _ = h.tun.Write(packet[:n])
		}
	}
}

// untouched fails the test if the hosts' user space handled a packet.
func untouched(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		if out, in := h.sent.Load(), h.received.Load(); out != 0 || in != 0 {
			t.Errorf("host %s: user space sent %d packets and received %d; want none", h.Name(), out, in)
		}
	}
}

func run(t *testing.T, h *netnstest.Host, name string, args ...string) string {
	t.Helper()
	out, err := h.Command(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("host %s: %s %s: %v\n%s", h.Name(), name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// iperf sends data from one namespace to an address of another and returns the result.
func iperf(t *testing.T, from, to *netnstest.Host, addr netip.Addr, args ...string) (result struct {
	End struct {
		SumReceived struct {
			Bytes         float64
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		SumSent struct{ Retransmits int } `json:"sum_sent"`
		Sum     struct {
			Packets     int
			LostPackets int `json:"lost_packets"`
			OutOfOrder  int `json:"out_of_order"`
		}
	}
}) {
	t.Helper()
	server := to.Command(t.Context(), "iperf3", "-s", "-1", "--forceflush", "-B", addr.String())
	r, w := io.Pipe()
	server.Stdout = w
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(r)
	for lines.Scan() && !strings.Contains(lines.Text(), "listening") {
	}
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(io.Discard, r) })
	out, err := from.Command(t.Context(), "iperf3", append([]string{"-J", "-c", addr.String()}, args...)...).Output()
	if err != nil {
		t.Fatalf("iperf3 to %v: %v\n%s", addr, err, out)
	}
	if err := server.Wait(); err != nil {
		t.Fatalf("iperf3 server: %v", err)
	}
	w.Close()
	wg.Wait()
	if err := json.Unmarshal(out, &result); err != nil {
		t.Fatal(err)
	}
	return result
}

func (h *host) setRouteMTU(to netip.Addr, mtu int, lock bool) {
	h.t.Helper()
	h.must(h.Netlink().RouteReplace(&netlink.Route{
		Dst:       netnstest.IPNet(netip.PrefixFrom(to, to.BitLen())),
		LinkIndex: h.link(netnstest.Uplink), Scope: netlink.SCOPE_LINK, MTU: mtu, MTULock: lock,
	}))
}
