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
	"testing"
	"time"

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

	// sent and received count the packets that user space handled. lastSent begins the
	// last one that it sent.
	sent, received atomic.Int64
	lastSent       atomic.Pointer[string]

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
	h.awaitLocal(h.inner())
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

// awaitLocal waits until an address is the host's: of IPv6, the kernel makes it so later,
// by a worker (addrconf_dad_work, net/ipv6/addrconf.c). Until then the host forwards.
func (h *host) awaitLocal(addr netip.Addr) {
	h.t.Helper()
	netnstest.Eventually(h.t, fmt.Sprintf("%v is %s's", addr, h.Name()), func() error {
		routes, err := h.Netlink().RouteGet(addr.AsSlice())
		if err == nil && (len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL) {
			err = fmt.Errorf("its routes are %v", routes)
		}
		return err
	})
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

// refuses waits until the programs have refused n packets for a reason.
func (h *host) refuses(n uint64, reason string) {
	h.t.Helper()
	netnstest.Eventually(h.t, fmt.Sprintf("%s refuses %d packets", h.Name(), n), func() error {
		if got := h.drops()[reason]; got != n {
			return fmt.Errorf("%s is %d", reason, got)
		}
		return nil
	})
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

// untouched fails the test if the hosts' user space handled a packet.
func untouched(t *testing.T, hosts ...*host) {
	t.Helper()
	for _, h := range hosts {
		if out, in := h.sent.Load(), h.received.Load(); out != 0 || in != 0 {
			last := ""
			if p := h.lastSent.Load(); p != nil {
				last = *p
			}
			t.Errorf("host %s: user space sent %d packets and received %d; want none; the last one sent: %s", h.Name(), out, in, last)
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
	limited, cancel := context.WithTimeout(t.Context(), time.Minute) // it goes on for ever if all packets are lost
	defer cancel()
	out, err := from.Command(limited, "iperf3", append([]string{"-J", "-c", addr.String()}, args...)...).Output()
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
