package udp

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet"
)

// Packets that come between two networks wait, both ways, for the second one and its
// peers.
func TestPacketsWaitForTheNextNetwork(t *testing.T) {
	for _, path := range []string{plainName, offloadName} {
		t.Run(path, func(t *testing.T) {
			nodes := cluster(t, path, path)
			a, b := nodes[0], nodes[1]
			atA, addrA := a.listenUDP(t)
			atB, addrB := b.listenUDP(t)
			toA, toB := b.dialUDP(t, addrA), a.dialUDP(t, addrB)
			send(t, toA, atA, "at first")
			send(t, toB, atB, "at first")

			kept := a.leave(t)
			for _, c := range []*net.UDPConn{toA, toB} {
				if _, err := c.Write([]byte("between")); err != nil {
					t.Fatal(err)
				}
			}
			a.upWith(t, kept, backendOf(t, a.Host, path, ""))
			a.run()
			a.network.Apply([]subnet.Event{added(b.lease)})
			arrives(t, atA, "between")
			arrives(t, atB, "between")
		})
	}
}

// The next network may have other families: their sockets are opened or closed, and a
// network that is no longer inside leaves the device.
func TestNextNetworkOfOtherFamilies(t *testing.T) {
	for _, path := range []string{plainName, offloadName} {
		t.Run(path, func(t *testing.T) {
			netnstest.Require(t)
			only4 := mix{[]inet.Family{inet.IPv4}, "auto"}
			n := dualNode(t, netnstest.New(t), 1, path, only4)
			device := n.network.path.deviceName()
			index := n.index(t, device)
			for _, m := range []mix{{both, "auto"}, only4} {
				kept := n.leave(t)
				var b backend.Backend
				b, n.lease = dualBackend(t, n.Host, 1, path, m)
				n.upWith(t, kept, b)
				if got := n.index(t, n.network.path.deviceName()); got != index {
					t.Errorf("%v: the device was number %d, is %d", m, index, got)
				}
				has := n.lease.IPv6Subnet.IsValid()
				at := netip.AddrPortFrom(n.IPv6Addr().Addr(), DefaultPort).String()
				c, err := n.ListenPacket(t.Context(), "udp6", at)
				if errors.Is(err, unix.EADDRINUSE) != has {
					t.Errorf("%v: open %s: %v", m, at, err)
				}
				if err == nil {
					c.Close()
				}
				if err := n.Do(n.network.Check); err != nil {
					t.Errorf("%v: %v", m, err)
				}
				if out, err := n.Command(t.Context(), "ip", "-6", "route", "show", "dev", device, "proto", "85").Output(); err != nil || (len(out) > 0) != has {
					t.Errorf("%v: routes of IPv6 are %q, %v", m, out, err)
				}
				n.run()
			}
		})
	}
}

func (n *node) index(t *testing.T, device string) int {
	t.Helper()
	l, err := n.Netlink().LinkByName(device)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Index
}

// What no network takes over is closed.
func TestKeptIsClosed(t *testing.T) {
	n := cluster(t, plainName)[0]
	device := n.network.path.deviceName()
	if err := n.leave(t).Close(); err != nil {
		t.Fatal(err)
	}
	if n.HasLink(device) {
		t.Error("the device is left")
	}
	n.stop = func() error { return nil }
}

// leave ends the network and returns what it leaves.
func (n *node) leave(t *testing.T) io.Closer {
	t.Helper()
	err := n.end()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := n.network.Leave()
	if err != nil || kept == nil {
		t.Fatalf("left %v, %v", kept, err)
	}
	return kept
}

// upWith sets another network up with what the one before has left.
func (n *node) upWith(t *testing.T, kept io.Closer, b backend.Backend) {
	t.Helper()
	err := n.Do(func() error {
		up, err := backend.UpWith(t.Context(), b, n.lease, kept)
		if err == nil {
			n.network = up.(*network)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// send sends a text, which must arrive.
func send(t *testing.T, from *net.UDPConn, at net.PacketConn, text string) {
	t.Helper()
	if _, err := from.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	arrives(t, at, text)
}

func arrives(t *testing.T, at net.PacketConn, text string) {
	t.Helper()
	buf := make([]byte, 100)
	if err := at.SetReadDeadline(time.Now().Add(netnstest.Patience)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := at.ReadFrom(buf); err != nil || string(buf[:n]) != text {
		t.Fatalf("received %q, %v, want %q", buf[:n], err, text)
	}
}
