package rtnl

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/reconcile"
)

// What others do to our entries is undone.
func TestRepair(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	byUplink := State{Routes: []Route{{Dst: netip.MustParsePrefix("10.5.250.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink}}}
	want := join(peers(1, 50), byUplink)
	b.exchange(k, State{}, want)
	b.check(pass(k))
	b.run(k)
	p := peer(7)
	dst, ip, mac := p.Routes[0].Dst.String(), p.Neighs[0].IP.String(), p.Neighs[1].MAC.String()
	for _, harm := range []string{
		"route del " + dst,
		"route change " + dst + " via " + ip + " dev " + device + " onlink mtu 900 proto 85",
		"route add 10.5.99.0/24 via 10.5.99.0 dev " + device + " onlink",
		"neigh del " + ip + " dev " + device,
		"neigh replace " + ip + " lladdr 0e:00:00:00:99:99 nud permanent dev " + device,
		"neigh replace " + ip + " lladdr " + mac + " nud reachable dev " + device,
		"neigh add 10.5.99.0 lladdr 0e:00:00:00:99:99 nud permanent dev " + device,
		"neigh flush dev " + device + " nud permanent",
		"bridge fdb del " + mac + " dev " + device + " dst " + p.Neighs[1].IP.String(),
		"bridge fdb replace " + mac + " dev " + device + " dst 192.0.2.9",
		"bridge fdb add 0e:00:00:00:99:99 dev " + device + " dst 192.0.2.9",
		"link set eth0 down",
		"link set " + device + " down",
	} {
		t.Run(harm, func(t *testing.T) {
			inner := &bench{t, b.host, b.family, b.device}
			inner.ip(harm)
			if err := inner.difference(want); err != nil {
				t.Logf("harm is done")
			}
			if dev, down := strings.CutSuffix(strings.TrimPrefix(harm, "link set "), " down"); down {
				inner.ip("link set " + dev + " up")
			}
			took := eventually(t, func() error {
				if strings.Contains(inner.ip("route show "+dst), "mtu") { // which difference does not see
					return errors.New("the route has an MTU of its own")
				}
				return inner.difference(want)
			})
			t.Logf("repaired after %v", took)
		})
	}
}

// A program that puts its route in place of ours means it; when it takes it
// away, ours comes back.
func TestRouteIsReplaced(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.exchange(k, State{}, peers(0, 5))
	b.check(pass(k))
	b.run(k)
	dst := peer(3).Routes[0].Dst
	b.ip("route replace " + dst.String() + " dev eth0")
	eventually(t, func() error {
		if err := k.Refusals()[dst]; err == nil || !errors.Is(err, ErrForeign) {
			return fmt.Errorf("refusal: %v", err)
		}
		return nil
	})
	b.ip("route del " + dst.String() + " dev eth0")
	eventually(t, func() error { return b.difference(peers(0, 5)) })
}

// Another program's route that goes with its interface is announced by the
// interface alone.
func TestRouteInTheWayGoesUnannounced(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	want := State{Routes: []Route{{Dst: network, Dev: device, Kind: Link}}}
	for _, end := range []string{"link del other", "addr flush dev other"} {
		b.ip("link add other type bridge")
		b.ip("link set other up")
		b.ip("addr add 192.168.1.1/24 dev other")
		b.ip("route add " + network.String() + " dev other src 192.168.1.1")
		b.exchange(k, State{}, want)
		b.check(pass(k))
		b.expect(State{})
		if end == "link del other" {
			b.run(k)
		}
		b.ip(end)
		eventually(t, func() error { return b.difference(want) })
		b.exchange(k, want, State{})
		if end == "link del other" {
			continue
		}
		b.ip("link del other")
	}
}

// A Prepare that stops ends Run with its error.
func TestPrepareStops(t *testing.T) {
	b := newBench(t)
	broken := errors.New("broken")
	c := config()
	var stop atomic.Bool
	c.Prepare = func() error {
		if stop.Load() {
			return reconcile.Stop(broken)
		}
		return nil
	}
	k := b.reconciler(c)
	b.check(pass(k))
	stop.Store(true)
	k.Wake()
	if err := k.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("Run: %v, want %v", err, broken)
	}
}

// Prepare makes the device anew, and all entries follow.
func TestDeviceIsDeleted(t *testing.T) {
	b := newBench(t)
	c := config()
	var mu sync.Mutex
	c.Prepare = func() error {
		mu.Lock()
		defer mu.Unlock()
		if _, err := b.host.Netlink().LinkByName(device); !errors.As(err, new(netlink.LinkNotFoundError)) {
			return err
		}
		b.addDevice()
		return nil
	}
	k := b.reconciler(c)
	b.exchange(k, State{}, peers(0, 50))
	b.check(pass(k))
	b.run(k)
	b.ip("link del " + device)
	took := eventually(t, func() error { return b.difference(peers(0, 50)) })
	t.Logf("repaired after %v", took)
}

// When an interface goes down, the kernel takes its routes away and says so of
// the interface alone (net/ipv4/fib_frontend.c, fib_disable_ip).
func TestUplinkFlaps(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	want := State{Routes: []Route{{Dst: netip.MustParsePrefix("10.5.250.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink}}}
	b.exchange(k, State{}, want)
	b.check(pass(k))
	b.run(k)
	b.host.Down(netnstest.Uplink)
	b.expect(State{})
	b.host.Up(netnstest.Uplink)
	took := eventually(t, func() error { return b.difference(want) })
	t.Logf("repaired after %v", took)
}

// Run changes nothing before it is known what is desired.
func TestRunWaitsForReset(t *testing.T) {
	b := newBench(t)
	earlier := b.reconciler(config())
	b.exchange(earlier, State{}, peers(0, 5))
	b.check(pass(earlier))
	k := b.reconciler(config())
	b.run(k)
	for range 3 { // after the second, the first has been dealt with
		k.Wake()
		eventually(t, func() error {
			if len(k.changed) > 0 {
				return errors.New("it has not woken yet")
			}
			return nil
		})
	}
	b.expect(peers(0, 5))
	b.check(pass(k))
	b.expect(State{})
}

// If the first pass fails, Run tries again.
func TestFirstPassFails(t *testing.T) {
	b := newBench(t)
	c := config()
	tries := 0
	c.Prepare = func() error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}
	k := b.reconciler(c)
	b.exchange(k, State{}, peers(0, 3))
	if err := pass(k); err == nil {
		t.Error("no error")
	}
	b.run(k)
	eventually(t, func() error { return b.difference(peers(0, 3)) })
}

// Our own changes are announced as well, and must not keep us busy.
func TestOwnChangesAskForNoPass(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	surplus := netip.MustParsePrefix("10.5.99.0/24")
	asked := make(chan []byte, 1000) // announcements that ask for a pass
	done := make(chan error)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- k.listener.Run(ctx, func(datagram []byte) bool {
			// The kernel announces the links of the bench late.
			if kind := binary.NativeEndian.Uint16(datagram[4:]); kind != unix.RTM_NEWLINK && k.concerns(datagram) {
				asked <- bytes.Clone(datagram)
			}
			return false
		}, func() { t.Error("announcements were lost") })
	}()
	for n := range 200 {
		b.exchange(k, State{}, peer(n))
	}
	// This one asks for a pass, and comes last.
	b.ip("route add " + surplus.String() + " via 10.5.99.0 dev " + device + " onlink proto 85")
	select {
	case first := <-asked:
		if to := surplus.Addr().As4(); !bytes.Contains(first, to[:]) {
			t.Errorf("an own change asks for a pass: %x", first)
		}
	case <-time.After(netnstest.Patience):
		t.Error("the surplus route asks for no pass")
	}
	cancel()
	b.check(<-done)
}

// Linux 5.10 announces a forwarding entry a second time, without its destination.
func TestAnnouncementWithoutDestination(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	b.exchange(k, State{}, peer(0))
	link, err := b.host.Netlink().LinkByName(device)
	b.check(err)
	datagram, err := hex.DecodeString("280000001c00000000000000000000000700000003000000800002000a0002000e00000000000000")
	b.check(err)
	binary.NativeEndian.PutUint32(datagram[unix.SizeofNlMsghdr+4:], uint32(link.Attrs().Index))
	if k.concerns(datagram) {
		t.Error("it asks for a pass")
	}
}

func TestRunEnds(t *testing.T) {
	b := newBench(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var k *Reconciler
	b.check(b.host.Do(func() (err error) {
		k, err = New(config())
		return err
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	b.check(pass(k))
	cancel()
	b.check(<-done)
	b.check(k.Close())
	if err := pass(k); err == nil {
		t.Error("a pass works after Close")
	}
}

func TestRunFailsWithItsSocket(t *testing.T) {
	b := newBench(t)
	var k *Reconciler
	b.check(b.host.Do(func() (err error) {
		k, err = New(config())
		return err
	}))
	b.check(k.listener.Close())
	if err := k.Run(t.Context()); err == nil {
		t.Error("Run ends without an error though it hears nothing any more")
	}
	b.check(k.Close())
}

// Lost announcements are news: the socket's buffer is made to overflow.
func TestLostAnnouncements(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.exchange(k, State{}, peers(0, 5))
	b.check(pass(k))
	b.check(k.listener.SetBuffer(1)) // the kernel raises it to some 2 KiB
	for n := range 200 {
		b.check(b.host.Netlink().RouteAdd(&netlink.Route{Dst: netdev.IPNet(peer(1000 + n).Routes[0].Dst), Type: unix.RTN_BLACKHOLE}))
	}
	b.ip("route del " + peer(3).Routes[0].Dst.String())
	b.run(k)
	eventually(t, func() error { return b.difference(peers(0, 5)) })
}

// TestInterruptedDump lists interfaces, the table whose changes the kernel does
// report, while they change.
func TestInterruptedDump(t *testing.T) {
	b := newBench(t)
	const links = 150 // several datagrams full
	for n := range links {
		b.ip(fmt.Sprintf("link add stay%d type bridge", n))
	}
	quit, churned := make(chan struct{}), make(chan error, 1)
	go func() {
		var err error
		for err == nil {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "come-and-go"
			bridge := &netlink.Bridge{LinkAttrs: attrs}
			if err = b.host.Netlink().LinkAdd(bridge); err == nil {
				err = b.host.Netlink().LinkDel(bridge)
			}
			select {
			case <-quit:
				churned <- err
				return
			default:
			}
		}
		churned <- err
	}()
	var c *conn
	b.check(b.host.Do(func() (err error) {
		c, err = dial()
		return err
	}))
	defer c.sock.Close()
	dump := func() error {
		return c.dump(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg), func([]byte) {})
	}
	eventually(t, func() error {
		if err := dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return fmt.Errorf("dump was not interrupted: %v", err)
		}
		return nil
	})
	close(quit)
	b.check(<-churned)
	b.check(dump())
}

func TestInterruptedDumpIsRepeated(t *testing.T) {
	tries := 0
	got, err := RetryDump("x", func() ([]int, error) {
		tries++
		if tries < 3 {
			return []int{0}, netlink.ErrDumpInterrupted
		}
		return []int{tries}, nil
	})
	if err != nil || !slices.Equal(got, []int{3}) {
		t.Errorf("%v, %v after %d tries", got, err, tries)
	}
	tries = 0
	_, err = RetryDump("x", func() ([]int, error) { tries++; return nil, netlink.ErrDumpInterrupted })
	if !errors.Is(err, netlink.ErrDumpInterrupted) || tries != dumpTries {
		t.Errorf("%v after %d tries", err, tries)
	}
}
