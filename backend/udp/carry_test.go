package udp

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// node is a host of a test cluster, with the network at work on it, and a
// container.
type node struct {
	*netnstest.Host
	lease     subnet.Lease
	network   *network
	container *netnstest.Host
	// end ends the network's Run and returns what that returned; stop closes the network
	// as well.
	end, stop func() error
}

// run runs the network.
func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.network.Run(ctx) }()
	n.end = func() error {
		cancel()
		return <-done
	}
	n.stop = sync.OnceValue(func() error { return errors.Join(n.end(), n.network.Close()) })
}

// cluster makes hosts in namespaces, one for each data path named, and tells
// each of all others.
func cluster(t *testing.T, dataPaths ...string) []*node {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	var nodes []*node
	for i, dataPath := range dataPaths {
		nodes = append(nodes, newNode(t, lab.Host(fmt.Sprintf("n%d", i)), i, dataPath, ""))
	}
	introduce(nodes)
	return nodes
}

func introduce(nodes []*node) {
	for _, n := range nodes {
		for _, other := range nodes {
			if n != other {
				n.network.Apply([]subnet.Event{added(other.lease)})
			}
		}
	}
}

// newNode makes host h, whose uplink may be in a VRF, the node of a number.
func newNode(t *testing.T, h *netnstest.Host, i int, dataPath, vrf string) *node {
	t.Helper()
	n := &node{Host: h, lease: lease(fmt.Sprintf("10.5.%d.0/24", i), h.Addr().Addr().String())}
	n.network = upOn(t, h, n.lease, dataPath, vrf)
	n.run()
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("%s: %v", n.Name(), err)
		}
	})
	gateway := netip.AddrFrom4([4]byte{10, 5, byte(i), 1})
	n.Bridge("docker0", netip.PrefixFrom(gateway, 24), 0)
	n.container = n.Container(fmt.Sprintf("c%d", i), "docker0", netip.PrefixFrom(gateway.Next(), 24), gateway, n.network.MTU())
	return n
}

// backendOf returns a host's backend.
func backendOf(t *testing.T, h *netnstest.Host, dataPath, vrf string) backend.Backend {
	t.Helper()
	b, err := New(backend.Config{
		Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, DataPath: dataPath,
		Uplink:   uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: h.Addr().Addr(), VRF: vrf},
		PublicIP: h.Addr().Addr(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// upOn sets a network up on a host.
func upOn(t *testing.T, h *netnstest.Host, l subnet.Lease, dataPath, vrf string) *network {
	t.Helper()
	b := backendOf(t, h, dataPath, vrf)
	var up backend.Network
	if err := h.Do(func() (err error) { up, err = b.Up(t.Context(), l); return err }); err != nil {
		t.Fatal(err)
	}
	return up.(*network)
}

// listenUDP opens a socket in the container, which ends with the test.
func (n *node) listenUDP(t *testing.T) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	c, err := n.container.ListenPacket(t.Context(), "udp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, netip.AddrPortFrom(n.container.Addr().Addr(), c.LocalAddr().(*net.UDPAddr).AddrPort().Port())
}

// dialUDP opens a socket in the container that sends to to.
func (n *node) dialUDP(t *testing.T, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := n.container.Dial(t.Context(), "udp4", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// ends are the data paths at the two ends.
var ends = [][2]string{{"offload", "offload"}, {"offload", "plain"}, {"plain", "offload"}, {"plain", "plain"}}

func forPairs(t *testing.T, f func(t *testing.T, a, b *node)) {
	for _, p := range ends {
		t.Run(p[0]+" to "+p[1], func(t *testing.T) {
			n := cluster(t, p[0], p[1])
			f(t, n[0], n[1])
		})
	}
}

func TestTCPArrivesUnchanged(t *testing.T) {
	forPairs(t, func(t *testing.T, a, b *node) {
		l, err := b.container.Listen(t.Context(), "tcp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addr := netip.AddrPortFrom(b.container.Addr().Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
		want := make([]byte, 4<<20)
		rand.Read(want)

		// Several connections at once, which echo: bulk in both directions.
		var wg sync.WaitGroup
		defer wg.Wait()
		const connections = 3
		wg.Go(func() {
			for range connections {
				c, err := l.Accept()
				if err != nil {
					return
				}
				wg.Go(func() {
					defer c.Close()
					io.Copy(c, c)
				})
			}
		})
		var clients sync.WaitGroup
		for range connections {
			c, err := a.container.Dial(t.Context(), "tcp4", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			clients.Go(func() {
				defer c.Close()
				if err := echoes(c, want); err != nil {
					t.Error(err)
				}
			})
		}
		clients.Wait()
		l.Close()
		for _, n := range []*node{a, b} {
			for reason, count := range n.network.Stats().Drops {
				if count != 0 && reason != "malformed" {
					t.Errorf("%s: %d packets dropped: %s", n.Name(), count, reason)
				}
			}
		}
	})
}

// echoes sends data and wants them back.
func echoes(c net.Conn, data []byte) error {
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(c, got)
	if err := errors.Join(err, <-sent); err != nil {
		return err
	}
	if !bytes.Equal(got, data) {
		return errors.New("the data changed on their way")
	}
	return nil
}

// Datagrams of several flows arrive unchanged, and in order within their flow:
// small and large ones mixed, and a flow of those that the kernel fragments.
func TestUDPArrivesInOrder(t *testing.T) {
	forPairs(t, func(t *testing.T, a, b *node) {
		server, to := b.listenUDP(t)

		const rounds = 20
		sizes := [][]int{
			{8, 600, 600, 600, 1400, 64, 600, 600}, {100, 100, 100}, {1000, 500, 500, 1000},
			{1444, 1444, 8}, {4000, 3000},
		}
		var clients []net.Conn
		total := 0
		flow := make(map[string][]int) // sizes by client
		for i := range sizes {
			total += len(sizes[i])
			c := a.dialUDP(t, to)
			clients = append(clients, c)
			flow[c.LocalAddr().String()] = sizes[i]
		}
		next := make(map[string]uint32)
		buf := make([]byte, 5000)
		for round := range rounds {
			for k, c := range clients {
				for i, size := range sizes[k] {
					if _, err := c.Write(datagram(uint32(round*len(sizes[k])+i), size)); err != nil {
						t.Fatal(err)
					}
				}
			}
			// A round fits into all queues on the way, so nothing may be missing.
			for range total {
				n, from, err := server.ReadFrom(buf)
				if err != nil {
					t.Fatal(err)
				}
				seq, sizes := next[from.String()], flow[from.String()]
				if want := datagram(seq, sizes[int(seq)%len(sizes)]); !bytes.Equal(buf[:n], want) {
					t.Fatalf("flow %v: datagram %d of %d bytes came as %d of %d", from, seq, len(want), binary.BigEndian.Uint32(buf), n)
				}
				next[from.String()]++
			}
		}
		if len(next) != len(sizes) {
			t.Errorf("datagrams of %d flows arrived, want %d", len(next), len(sizes))
		}
	})
}

func datagram(seq uint32, size int) []byte {
	b := bytes.Repeat([]byte{byte(seq)}, size)
	binary.BigEndian.PutUint32(b, seq)
	return b
}

func TestUDPSegmentsArrive(t *testing.T) {
	forPairs(t, func(t *testing.T, a, b *node) {
		server, to := b.listenUDP(t)
		c := a.dialUDP(t, to)
		setSegment(t, c, 1000)
		data := make([]byte, 40*1000+500)
		rand.Read(data)
		if _, err := c.Write(data); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for buf := make([]byte, 2000); len(got) < len(data); {
			n, _, err := server.ReadFrom(buf)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, buf[:n]...)
		}
		if !bytes.Equal(got, data) {
			t.Error("segments changed, or came in another order")
		}
	})
}

func setSegment(t *testing.T, c *net.UDPConn, size int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size) })
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
}

func TestNoRouteIsAnswered(t *testing.T) {
	for _, dataPath := range []string{"plain", "offload"} {
		n := cluster(t, dataPath)[0]
		_, err := n.container.Dial(t.Context(), "tcp4", "10.5.200.2:80")
		if !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("%s: connect to a subnet that nobody has: %v, want ENETUNREACH", dataPath, err)
		}
		if n.network.Stats().Drops["no_route"] == 0 {
			t.Errorf("%s: not counted", dataPath)
		}
	}
}

// Each host counts what it sends and receives of a peer, in wire packets.
func TestPeersAreCounted(t *testing.T) {
	forPairs(t, func(t *testing.T, a, b *node) {
		server, to := b.listenUDP(t)
		c := a.dialUDP(t, to)
		setSegment(t, c, 100)
		if _, err := c.Write(make([]byte, 950)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 200)
		for range 10 {
			if _, _, err := server.ReadFrom(buf); err != nil {
				t.Fatal(err)
			}
		}
		// Counters follow the packets; they are settled once Run has returned.
		if err := errors.Join(a.stop(), b.stop()); err != nil {
			t.Fatal(err)
		}
		tx, rx := a.network.table.stats()[0], b.network.table.stats()[0]
		if tx.TxPackets != 10 || tx.TxBytes != 950+10*28 || rx.RxPackets != 10 || rx.RxBytes != 950+10*28 {
			t.Errorf("sent %+v, received %+v; want 10 packets, 1230 bytes", tx, rx)
		}
	})
}
