package bpf

import (
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/rtnl"
)

// withoutSegmenter has the programs leave to the reader what they cannot encapsulate
// as a whole.
func (h *host) withoutSegmenter() {
	h.t.Helper()
	h.must(h.path.Segmenter.Put(uint32(0), flannelSegmenter{}))
}

// TestSuperDatagram sends UDP_SEGMENT trains, which are segmented in the kernel. Without
// a segmenter they go to user space, and the rest of their flow goes there, too.
func TestSuperDatagram(t *testing.T) {
	for _, test := range []struct {
		name      string
		segmenter bool
		user      int64
	}{{"segmenter", true, 0}, {"reader", false, 4}} {
		t.Run(test.name, func(t *testing.T) {
			_, hosts := newHosts(t, true, true)
			a, b := hosts[0], hosts[1]
			if !test.segmenter {
				a.withoutSegmenter()
			}
			in, write := listenInner(b), senderInner(a, b)
			write(make([]byte, 100), nil)
			in.receive(t)
			untouched(t, a, b)

			write(make([]byte, 3*1000), trainControl(1000))
			write(make([]byte, 100), nil)
			for _, want := range []int{1000, 1000, 1000, 100} {
				if _, text := in.receive(t); len(text) != want {
					t.Errorf("a datagram of %d bytes came, want %d", len(text), want)
				}
			}
			if n := a.sent.Load(); n != test.user {
				t.Errorf("user space sent %d packets, want %d", n, test.user)
			}
			if n := b.received.Load(); n != test.user {
				t.Errorf("user space received %d packets, want %d", n, test.user)
			}
		})
	}
}

// TestNested carries a VXLAN tunnel between containers. Its packets have the mark of a
// tunnel already: super-packets, small ones, and those that the kernel has not
// completed. In datagrams of the other family they go by the reader: the kernel learns of
// that family together with the mark.
func TestNested(t *testing.T) { eachFamilies(t, testNested) }

func testNested(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	ca, cb := a.container(), b.container()
	outer := netip.MustParsePrefix("198.18.0.1/24")
	inner := outer.Addr().Next()
	f.nest(t, ca, cb, outer)
	f.nest(t, cb, ca, netip.PrefixFrom(inner, 24))
	run(t, ca, "ping", "-c", "3", "-i", "0.01", "-w", "5", inner.String())
	for range 3 {
		transfer(t, ca, cb, inner, 20<<20)
	}
	if f.inner == f.outer {
		untouched(t, a, b)
	}
}

// transfer sends bytes by TCP and waits until all have arrived.
func transfer(t *testing.T, from, to *netnstest.Host, addr netip.Addr, bytes int) {
	t.Helper()
	l, err := to.Listen(t.Context(), "tcp4", netip.AddrPortFrom(addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := from.Dial(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sent := make([]byte, bytes)
	for i := range sent {
		sent[i] = byte(i>>8 ^ i)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		if _, err := out.Write(sent); err != nil {
			t.Error(err)
		}
	})
	if err := in.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	received := make([]byte, bytes)
	if n, err := io.ReadFull(in, received); err != nil || !slices.Equal(received, sent) {
		t.Errorf("%d bytes of %d arrived, %v; equal: %v", n, bytes, err, slices.Equal(received, sent))
	}
}

// nest makes a VXLAN device in a container, over the overlay to another one.
func (f families) nest(t *testing.T, c, peer *netnstest.Host, addr netip.Prefix) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "vxlan42", f.mtu()-f.inner.HeaderLen()-30
	device := &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 42, Port: 4789, SrcAddr: f.addrOf(c).AsSlice(), Group: f.addrOf(peer).AsSlice()}
	if err := c.Netlink().LinkAdd(device); err != nil {
		t.Fatal(err)
	}
	c.AddAddr(attrs.Name, addr)
	c.Up(attrs.Name)
}

// TestSegmenterGone deletes the segmenter. Attach makes another one.
func TestSegmenterGone(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	in, _ := netdev.Segmenter(deviceName)
	l, err := a.Netlink().LinkByName(in)
	a.must(err)
	a.must(a.Netlink().LinkDel(l))
	if a.Do(a.path.CheckLinks) == nil {
		t.Error("CheckLinks does not see that the segmenter is gone")
	}
	a.attachTo(netnstest.Uplink)
	a.must(a.Do(a.path.CheckLinks))
	receive, write := listenInner(b), senderInner(a, b)
	write(make([]byte, 2*1000), trainControl(1000))
	receive.receive(t)
	receive.receive(t)
	untouched(t, a, b)
	a.must(RemoveSegmenter(a.Netlink(), deviceName))
	if a.HasLink(in) {
		t.Error("the segmenter is not removed")
	}
	a.must(RemoveSegmenter(a.Netlink(), deviceName))
}

// The kernel's own multicast of IPv6 at the segmenter does not get to the device.
func TestSegmenterMulticast(t *testing.T) {
	_, hosts := newHostsOf(t, families{inet.IPv6, inet.IPv6}, false, true, true)
	a := hosts[0]
	in, out := netdev.Segmenter(deviceName)
	fd := a.capture(deviceName)
	group, nobody := netip.MustParseAddr("ff02::1:2"), netip.MustParseAddr("fd00:5:0:77::1")
	newWire(a, a, in, out).send(append(ip6(0, 0, 17, 8, netip.MustParseAddr("fe80::1"), group), udp(1, 2, 0, nil)...))
	a.say(netip.AddrPortFrom(a.inner(), echoPort), nobody, 0, "to nobody")
	for packet := make([]byte, 1<<16); ; {
		n, _, err := unix.Recvfrom(fd, packet, 0)
		a.must(err)
		if n < 40 || packet[0]>>4 != 6 {
			continue
		}
		switch to := destinationOf(packet[:n]); to {
		case group:
			t.Fatal("the device got the segmenter's multicast")
		case nobody:
			return
		}
	}
}

// A device of others that has the segmenter's name stays. The path goes on without, and
// has the reason until the name is free.
func TestSegmenterIsTaken(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a := hosts[0]
	a.must(a.path.Loss())
	in, _ := netdev.Segmenter(deviceName)
	a.must(RemoveSegmenter(a.Netlink(), deviceName))
	a.Bridge(in, netip.MustParsePrefix("192.0.2.1/24"), 1500)
	a.attachTo(netnstest.Uplink)
	if why := a.path.Loss(); why == nil || !strings.Contains(why.Error(), "without segmenter: ") {
		t.Errorf("the path has the reason %v", why)
	}
	a.must(rtnl.DeleteLink(a.Netlink(), in))
	a.attachTo(netnstest.Uplink)
	a.must(a.path.Loss())
}
