package udp

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// mix is a network: the families inside, and Backend.Mode.
type mix struct {
	inside []inet.Family
	mode   string
}

var both = inet.Families[:]

func (m mix) String() string { return fmt.Sprintf("%v in %s", m.inside, m.mode) }

// dualBackend returns the backend and the lease of a host with addresses of both
// families.
func dualBackend(t *testing.T, h *netnstest.Host, i int, dataPath string, m mix) (backend.Backend, subnet.Lease) {
	t.Helper()
	c := backend.Config{
		Uplink:     uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: h.Addr().Addr()},
		IPv6Uplink: uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: h.IPv6Addr().Addr()},
		PublicIP:   h.Addr().Addr(), PublicIPv6: h.IPv6Addr().Addr(),
		DataPath: dataPath, Options: json.RawMessage(fmt.Sprintf(`{"Type": "udp", "Mode": %q}`, m.mode)),
	}
	var l subnet.Lease
	for _, f := range m.inside {
		if f == inet.IPv4 {
			c.Network, c.SubnetLen = netip.MustParsePrefix("10.5.0.0/16"), 24
			l.Subnet = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(i)}), 24)
		} else {
			c.IPv6Network, c.IPv6SubnetLen = netip.MustParsePrefix("fd00:5::/48"), 64
			l.IPv6Subnet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 7: byte(i)}), 64)
		}
	}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	l.Attrs = b.Attrs()
	return b, l
}

// dualNode is newNode on a host with addresses of both families.
func dualNode(t *testing.T, lab *netnstest.Lab, i int, dataPath string, m mix) *node {
	t.Helper()
	n := &node{Host: lab.DualHost(fmt.Sprintf("n%d", i))}
	var b backend.Backend
	b, n.lease = dualBackend(t, n.Host, i, dataPath, m)
	n.upWith(t, nil, b)
	if k, ok := n.network.path.(*kernel); ok {
		k.inside = n.Do
	}
	n.run()
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Errorf("%s: %v", n.Name(), err)
		}
	})
	gateway := netip.AddrFrom4([4]byte{10, 5, byte(i), 1})
	n.Bridge("docker0", netip.PrefixFrom(gateway, 24), 0)
	n.container = n.Container(fmt.Sprintf("c%d", i), "docker0", netip.PrefixFrom(gateway.Next(), 24), gateway, n.network.MTU())
	if s := n.lease.IPv6Subnet; s.IsValid() {
		n.AddIPv6("docker0", n.container, s)
	}
	return n
}

// dualCluster tells each of two hosts of the other.
func dualCluster(t *testing.T, dataPaths [2]string, m mix) (a, b *node) {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b = dualNode(t, lab, 0, dataPaths[0], m), dualNode(t, lab, 1, dataPaths[1], m)
	a.apply(b.lease)
	b.apply(a.lease)
	return a, b
}

// apply adds a peer. Programs are attached in the namespace of the calling thread.
func (n *node) apply(peer subnet.Lease) {
	_ = n.Do(func() error { n.network.Apply(parts(peer)); return nil })
}

// parts are the events of a lease.
func parts(l subnet.Lease) (events []subnet.Event) {
	for _, f := range inet.Families {
		if l.SubnetOf(f).IsValid() {
			events = append(events, subnet.Event{Type: subnet.Added, Lease: &l, Family: f})
		}
	}
	return events
}

// innerAddr is the container's address in a family.
func (n *node) innerAddr(f inet.Family) netip.Addr {
	if f == inet.IPv4 {
		return n.container.Addr().Addr()
	}
	return n.container.IPv6Addr().Addr()
}

// Packets of each family arrive in datagrams of each: bulk TCP, datagrams of the MTU's
// size and above, pings. None is dropped.
func TestFamiliesInside(t *testing.T) {
	for _, m := range []mix{{both, "auto"}, {both, "ipv4"}, {both, "ipv6"}, {both[1:], "auto"}, {both[1:], "ipv4"}, {both[:1], "ipv6"}} {
		for _, paths := range [][2]string{{"offload", "offload"}, {"plain", "offload"}, {"plain", "plain"}} {
			if paths[0] == "plain" && (m.mode != "auto" || len(m.inside) == 1) {
				continue
			}
			t.Run(fmt.Sprint(m, " ", paths), func(t *testing.T) {
				a, b := dualCluster(t, paths, m)
				for _, f := range m.inside {
					ping(t, a, b, f, 56)
					ping(t, b, a, f, a.network.MTU()-f.HeaderLen()-8)
					ping(t, a, b, f, 5000)
					bulk(t, a, b, f)
				}
				// Ours are settled once Run has returned.
				if err := errors.Join(a.stop(), b.stop()); err != nil {
					t.Fatal(err)
				}
				for _, n := range []*node{a, b} {
					s := n.network.Stats()
					for reason, count := range s.Drops {
						// The host's own multicast has no route.
						if count != 0 && reason != "malformed" && reason != "no_route" {
							t.Errorf("%s: %d packets dropped: %s", n.Name(), count, reason)
						}
					}
					if len(s.Peers) != len(m.inside) {
						t.Errorf("%s: %d peers, want one for each family", n.Name(), len(s.Peers))
					}
					for _, p := range s.Peers {
						if p.TxPackets == 0 || p.RxPackets == 0 || m.mode == "ipv6" != p.PublicIP.Is6() && m.mode != "auto" {
							t.Errorf("%s: peer %+v", n.Name(), p)
						}
					}
				}
			})
		}
	}
}

func ping(t *testing.T, from, to *node, f inet.Family, size int) {
	t.Helper()
	netnstest.Eventually(t, fmt.Sprintf("ping of %d bytes over %v", size, f), func() error {
		out, err := from.container.Command(t.Context(), "ping", "-n", "-c", "1", "-W", "2", "-s", fmt.Sprint(size), to.innerAddr(f).String()).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, out)
		}
		return err
	})
}

// bulk echoes data by TCP.
func bulk(t *testing.T, from, to *node, f inet.Family) {
	t.Helper()
	l, err := to.container.Listen(t.Context(), "tcp", netip.AddrPortFrom(to.innerAddr(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var echo sync.WaitGroup
	defer echo.Wait()
	echo.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.Copy(c, c)
	})
	c, err := from.container.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		l.Close()
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(netnstest.Patience)); err != nil {
		t.Error(err)
	}
	data := make([]byte, 2<<20)
	rand.Read(data)
	if err := echoes(c, data); err != nil {
		t.Errorf("TCP over %v: %v", f, err)
	}
	c.Close()
}

// A subnet that nobody has is answered with ICMPv6, and a path that is narrower than
// the uplink by "packet too big".
func TestICMPv6Answers(t *testing.T) {
	for _, path := range []string{"plain", "offload"} {
		for _, mode := range []string{"ipv4", "ipv6"} {
			t.Run(path+" "+mode, func(t *testing.T) {
				a, b := dualCluster(t, [2]string{path, path}, mix{both, mode})
				_, err := a.container.Dial(t.Context(), "tcp", "[fd00:5:0:c8::2]:80")
				if !errors.Is(err, unix.ENETUNREACH) {
					t.Errorf("connect to a subnet that nobody has: %v, want ENETUNREACH", err)
				}
				a.SetMTU(netnstest.Uplink, 1400)
				b.SetMTU(netnstest.Uplink, 1400)
				bulk(t, a, b, inet.IPv6)
				ping(t, a, b, inet.IPv6, 5000)
				drops := a.network.Stats().Drops
				if drops["too_big"] == 0 || drops["no_route"] == 0 {
					t.Errorf("drops %v, want too_big and no_route", drops)
				}
			})
		}
	}
}

// A host that loses the addresses of one family still exchanges packets of both in
// datagrams of the other, once the leases name no other.
func TestPeerWithOneAddress(t *testing.T) {
	a, b := dualCluster(t, [2]string{"offload", "offload"}, mix{both, "auto"})
	less := a.lease
	less.Attrs.PublicIPv6 = netip.Addr{}
	b.network.Apply(parts(less))
	less = b.lease
	less.Attrs.PublicIPv6 = netip.Addr{}
	a.network.Apply(parts(less))
	for _, f := range both {
		ping(t, a, b, f, 1000)
	}
	for _, p := range a.network.Stats().Peers {
		if p.PublicIP.Is6() || p.Problem != "" {
			t.Errorf("%+v", p)
		}
	}
	// One that names no address of ours is a problem of that peer.
	less.Attrs.PublicIP = netip.Addr{}
	a.network.Apply(parts(less))
	for _, p := range a.network.Stats().Peers {
		if !strings.Contains(p.Problem, "names no address") {
			t.Errorf("%+v", p)
		}
	}
	a.network.Apply(parts(b.lease))
	for _, p := range a.network.Stats().Peers {
		if p.Problem != "" {
			t.Errorf("%+v", p)
		}
	}
}

// Datagrams larger than the inner MTU arrive in fragments, and extension headers stay.
func TestIPv6FragmentsAndExtensionHeaders(t *testing.T) {
	for _, path := range []string{"plain", "offload"} {
		a, b := dualCluster(t, [2]string{path, path}, mix{both, "auto"})
		server, err := b.container.ListenPacket(t.Context(), "udp6", netip.AddrPortFrom(b.innerAddr(inet.IPv6), 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		c, err := a.container.Dial(t.Context(), "udp6", server.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		buf := make([]byte, 1<<16)
		for _, options := range []string{"", "\x00\x00\x01\x04\x00\x00\x00\x00"} { // padding, RFC 8200 section 4.2
			raw, err := c.(*net.UDPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var serr error
			if err := raw.Control(func(fd uintptr) {
				serr = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, options)
			}); err != nil || serr != nil {
				t.Fatal(err, serr)
			}
			for _, size := range []int{10, 1300, 9000} {
				want := bytes.Repeat([]byte{byte(size)}, size)
				if _, err := c.Write(want); err != nil {
					t.Fatal(err)
				}
				n, _, err := server.ReadFrom(buf)
				if err != nil || !bytes.Equal(buf[:n], want) {
					t.Fatalf("%s: %d bytes came as %d, %v", path, size, n, err)
				}
			}
		}
	}
}

// FLANNEL_MTU suits every datagram. The device's is that of the widest.
func TestMTUOfFamilies(t *testing.T) {
	for m, want := range map[string][2]int{"auto": {1452, 1472}, "ipv4": {1472, 1472}, "ipv6": {1452, 1452}} {
		n := dualNode(t, netnstest.New(t), 0, "offload", mix{both, m})
		if got := [2]int{n.network.MTU(), n.network.deviceMTU()}; got != want {
			t.Errorf("mode %s: %v, want %v", m, got, want)
		}
		if err := n.network.Check(); err != nil {
			t.Error(err)
		}
	}
}
