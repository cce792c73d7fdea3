package fastpath

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/pinned"
)

const (
	deviceName = "flannel0"
	deviceMTU  = 1500 - 28
	bridgeName = "docker0"
	bpffs      = "/sys/fs/bpf"
)

var network = netip.MustParsePrefix("10.5.0.0/16")

// host has a bridge with a container, and a tunnel to the other host that is
// carried by user space: the programs see the same packets with any tunnel. A direct
// host has a route to the other host's subnet instead.
type host struct {
	*netnstest.Host
	t         *testing.T
	subnet    netip.Prefix
	container *netnstest.Host
	device    int
	tun       *os.File
	socket    net.PacketConn
	programs  *programs
	windows   *windows
	path      *Path
	others    []*Path
	stop      func()
	marks     Marks
	tunnel    Tunnel
	direct    bool
	old       bool // as if the kernel had no tcx
}

// eachWay runs a test with a tunnel between the hosts, and without.
func eachWay(t *testing.T, test func(t *testing.T, direct bool)) {
	t.Run("tunnel", func(t *testing.T) { test(t, false) })
	t.Run("direct", func(t *testing.T) { test(t, true) })
}

// newHosts makes two hosts whose containers reach each other the long way.
func newHosts(t *testing.T) (*netnstest.Lab, *host, *host) {
	t.Helper()
	return newHostsWith(t, "10.5.1.0/24", "10.5.2.0/24")
}

// newHostsBy makes two hosts with a tunnel or without.
func newHostsBy(t *testing.T, direct bool) (*netnstest.Lab, *host, *host) {
	t.Helper()
	if !direct {
		return newHosts(t)
	}
	netnstest.Require(t)
	netnstest.RequireConntrackTimeouts(t)
	lab := netnstest.New(t)
	a, b := newHost(t, lab, "a", "10.5.1.0/24"), newHost(t, lab, "b", "10.5.2.0/24")
	for h, peer := range map[*host]*host{a: b, b: a} {
		h.direct = true
		h.AddRoute(peer.subnet, peer.Addr().Addr(), netnstest.Uplink)
	}
	return lab, a, b
}

// newHostsWith makes two hosts with these subnets.
func newHostsWith(t *testing.T, ofA, ofB string) (*netnstest.Lab, *host, *host) {
	t.Helper()
	netnstest.Require(t)
	netnstest.RequireConntrackTimeouts(t)
	return makeHosts(t, ofA, ofB)
}

// makeHosts makes two hosts with these subnets, also with a kernel that has no fast
// path.
func makeHosts(t *testing.T, ofA, ofB string) (*netnstest.Lab, *host, *host) {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b := newHost(t, lab, "a", ofA), newHost(t, lab, "b", ofB)
	a.addTunnel()
	b.addTunnel()
	a.carry(b)
	b.carry(a)
	return lab, a, b
}

func newHost(t *testing.T, lab *netnstest.Lab, name, subnet string) *host {
	t.Helper()
	h := &host{Host: lab.Host(name), t: t, subnet: netip.MustParsePrefix(subnet), marks: MarksOf(0x30000000)}
	h.Bridge(bridgeName, netip.PrefixFrom(h.gateway(), h.subnet.Bits()), deviceMTU)
	// As Docker does: a bridge without an address of its own takes its ports'. Linux 5.10
	// makes no forwarding entry for the address that the bridge has already.
	bridge, err := h.Netlink().LinkByName(bridgeName)
	h.must(err)
	own := slices.Clone(bridge.Attrs().HardwareAddr)
	own[len(own)-1] ^= 1
	h.must(h.Netlink().LinkSetHardwareAddr(bridge, own))
	h.container = h.Container(name+"1", bridgeName, netip.PrefixFrom(h.gateway().Next(), h.subnet.Bits()), h.gateway(), deviceMTU)
	return h
}

func (h *host) addTunnel() {
	h.t.Helper()
	// Elsewhere the tunnel's own programs see to it that a bpffs is mounted.
	pins := filepath.Join(h.config().PinDir, "mount")
	h.must(pinned.Prepare(pins, func(string) error { return nil }))
	h.must(pinned.Remove(pins))
	h.must(h.Do(func() (err error) {
		if h.tun, err = netnstest.OpenTUN(deviceName); err != nil {
			return err
		}
		i, err := net.InterfaceByName(deviceName)
		if err == nil {
			h.device = i.Index
		}
		return err
	}))
	h.SetMTU(deviceName, deviceMTU)
	h.AddAddr(deviceName, netip.PrefixFrom(h.subnet.Addr(), 32))
	h.Up(deviceName)
	h.AddRoute(network, netip.Addr{}, deviceName)
	socket, err := h.ListenPacket(h.t.Context(), "udp4", netip.AddrPortFrom(h.Addr().Addr(), 8285).String())
	h.must(err)
	h.socket = socket
}

// outer is the interface to the other host.
func (h *host) outer() string {
	if h.direct {
		return netnstest.Uplink
	}
	return deviceName
}

func (h *host) gateway() netip.Addr { return h.subnet.Addr().Next() }

// addr is the container's address.
func (h *host) addr() netip.Addr { return h.container.Addr().Addr() }

func (h *host) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("host %s: %v", h.Name(), err)
	}
}

// carry carries what the tunnel device sends to the peer.
func (h *host) carry(peer *host) {
	var wg sync.WaitGroup
	wg.Go(func() {
		packet := make([]byte, 1<<16)
		for {
			n, err := h.tun.Read(packet)
			if err != nil {
				return
			}
			_, _ = h.socket.WriteTo(packet[:n], net.UDPAddrFromAddrPort(netip.AddrPortFrom(peer.Addr().Addr(), 8285)))
		}
	})
	wg.Go(func() {
		packet := make([]byte, 1<<16)
		for {
			n, _, err := h.socket.ReadFrom(packet)
			if err != nil {
				return
			}
			_, _ = h.tun.Write(packet[:n])
		}
	})
	h.t.Cleanup(func() {
		h.must(h.socket.Close())
		h.must(h.tun.Close())
		wg.Wait()
	})
}

// config pins below a directory of the test's own.
func (h *host) config() Config {
	name := strings.NewReplacer("/", "_", ".", "_").Replace(h.t.Name())
	c := Config{
		Name: deviceName, Device: h.device, Network: network, Subnet: h.subnet, Marks: h.marks, old: h.old,
		PinDir: filepath.Join(bpffs, fmt.Sprintf("flannel-test-%d-%s-%s", os.Getpid(), name, h.Name())),
	}
	if h.direct {
		c.Name = "10.5.0.0-16"
		c.PinDir = filepath.Join(c.PinDir, "direct") // its siblings belong to the test, too
	}
	return c
}

// run puts a Path to work, as the backend does.
func (h *host) run() {
	h.t.Helper()
	h.path, h.stop = h.begin(h.config())
	h.programs = h.path.programs
}

// runPath runs one of another network beside it.
func (h *host) runPath(c Config) {
	h.t.Helper()
	p, _ := h.begin(c)
	h.others = append(h.others, p)
}

func (h *host) begin(c Config) (path *Path, stop func()) {
	h.t.Helper()
	h.must(h.Do(func() (err error) {
		if path, err = New(c); err == nil {
			err = path.Join(h.tunnel)
		}
		return err
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.Do(func() error { return path.Run(ctx) }); err != nil {
			h.t.Errorf("host %s: %v", h.Name(), err)
		}
	})
	stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
		h.must(path.Close())
	})
	h.t.Cleanup(func() {
		stop()
		h.must(h.Do(func() error { return Remove(c.PinDir, c.Name) }))
	})
	return path, stop
}

// serves waits until the path serves n addresses.
func (h *host) serves(n int) {
	h.t.Helper()
	h.until(fmt.Sprintf("%d containers are served", n), func() bool { return h.path.Status().Containers == n })
}

// until waits for a condition that follows from an event of the kernel.
func (h *host) until(what string, is func() bool) {
	h.t.Helper()
	met := false
	defer func() {
		if !met {
			out, _ := h.Command(h.t.Context(), "sh", "-c", "ip neigh; bridge fdb; ip link").CombinedOutput()
			h.t.Logf("host %s\n%s", h.Name(), out)
		}
	}()
	netnstest.Eventually(h.t, "host "+h.Name()+": "+what, func() error {
		if met = is(); !met {
			return fmt.Errorf("counts are %+v", h.stats())
		}
		return nil
	})
}

// start puts the programs to work for the containers given.
func (h *host) start(containers ...Container) {
	h.t.Helper()
	c := h.config()
	h.must(h.Do(func() (err error) {
		if err := mark(c, []int{h.index(h.outer())}); err != nil {
			return err
		}
		if h.programs, _, err = open(c); err != nil {
			return err
		}
		if err := h.programs.join(h.tunnel); err != nil {
			return err
		}
		if err := h.programs.renew(false); err != nil {
			return err
		}
		if h.windows, err = openWindows(h.programs); err != nil {
			return err
		}
		return h.programs.set(service{containers: containers, outer: []int{h.index(h.outer())}})
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := h.windows.run(ctx); err != nil {
			h.t.Errorf("host %s: %v", h.Name(), err)
		}
	})
	h.t.Cleanup(func() {
		cancel()
		wg.Wait()
		_ = h.windows.close()
		h.must(h.programs.close())
		h.must(pinned.Remove(c.PinDir))
	})
}

// known is the host's own container, as discovery would find it.
func (h *host) known() Container {
	h.t.Helper()
	return Container{
		Addr: h.addr(), MAC: h.mac(h.container, "eth0"), Bridge: h.index(bridgeName),
		Gateway: h.mac(h.Host, bridgeName), Port: h.index("veth-" + h.container.Name()),
	}
}

func (h *host) index(name string) int {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	return l.Attrs().Index
}

func (h *host) mac(where *netnstest.Host, name string) MAC {
	h.t.Helper()
	l, err := where.Netlink().LinkByName(name)
	h.must(err)
	return MAC(l.Attrs().HardwareAddr)
}

func (h *host) stats() Stats {
	h.t.Helper()
	s, err := h.programs.stats()
	h.must(err)
	return s
}

// nft runs a script of nft(8) on the host.
func (h *host) nft(script string) {
	h.t.Helper()
	c := h.Command(h.t.Context(), "nft", "-f", "-")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		h.t.Fatalf("host %s: nft: %v\n%s", h.Name(), err, out)
	}
}

// stream is a TCP connection between the containers, or a pair of UDP sockets.
type stream struct {
	t        *testing.T
	from, to net.Conn
}

// connect opens a TCP connection from the container of a to that of b.
func connect(t *testing.T, a, b *host) stream {
	t.Helper()
	l := b.listen(0)
	return connectTo(a, l, l.Addr().(*net.TCPAddr).AddrPort())
}

// listen listens at a port of the container; 0 is any.
func (h *host) listen(port uint16) net.Listener {
	h.t.Helper()
	l, err := h.container.Listen(h.t.Context(), "tcp4", netip.AddrPortFrom(h.addr(), port).String())
	h.must(err)
	return l
}

// connectTo opens a connection from a's container to an address that leads to l, by a
// rule perhaps, and closes l.
func connectTo(a *host, l net.Listener, to netip.AddrPort) stream {
	a.t.Helper()
	defer l.Close()
	from, err := a.container.Dial(a.t.Context(), "tcp4", to.String())
	a.must(err)
	accepted, err := l.Accept()
	a.must(err)
	a.t.Cleanup(func() { from.Close(); accepted.Close() })
	limit(a.t, from)
	limit(a.t, accepted)
	return stream{a.t, from, accepted}
}

// exchange sends n messages there and back, one at a time.
func (s stream) exchange(n int) {
	s.t.Helper()
	message := []byte("message of a container")
	for range n {
		for _, way := range [][2]net.Conn{{s.from, s.to}, {s.to, s.from}} {
			if _, err := way[0].Write(message); err != nil {
				s.t.Fatal(err)
			}
			got := make([]byte, len(message))
			if _, err := io.ReadFull(way[1], got); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// fast returns how many packets took the fast path at h while f ran.
func (h *host) fast(f func()) (sent, received uint64) {
	h.t.Helper()
	before := h.stats()
	f()
	after := h.stats()
	return after.Sent.Packets - before.Sent.Packets, after.Received.Packets - before.Received.Packets
}

// forget deletes the conntrack entries of the containers' flows.
func (h *host) forget() {
	h.t.Helper()
	h.must(h.Do(func() error {
		_, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, allFlows{})
		return err
	}))
}

// marked returns the number of entries with a mark.
func (h *host) marked(mark uint32) (n int) {
	h.t.Helper()
	h.must(h.Do(func() error {
		flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range flows {
			if f.Mark&mark != 0 {
				n++
			}
		}
		return err
	}))
	return n
}

type allFlows struct{}

func (allFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	source, _ := netip.AddrFromSlice(f.Forward.SrcIP.To4())
	return network.Contains(source)
}
