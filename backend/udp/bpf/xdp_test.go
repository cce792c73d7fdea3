package bpf

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
)

// hasDecapXDP fails the test unless decap_xdp is at an interface, or is not and the
// path has a reason.
func (h *host) hasDecapXDP(name string, want bool) {
	h.t.Helper()
	why := h.path.XDPRefusals()[h.link(name)]
	if has := h.hasXDP(name); has != want || (why == nil) != want {
		h.t.Errorf("XDP at %s: %v, and the reason against it %v; want it there: %v", name, has, why, want)
	}
}

func (h *host) hasXDP(name string) bool {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(name)
	h.must(err)
	return l.Attrs().Xdp != nil && l.Attrs().Xdp.Attached
}

// segmented makes the host's uplink carry frames of MTU size, as a network card does,
// or super-packets, and attaches the path again.
func (h *host) segmented(yes bool) {
	h.t.Helper()
	value := "on"
	if yes {
		value = "off"
	}
	run(h.t, h.Host, "ethtool", "-K", netnstest.Uplink, "gro", "on", "tso", value, "gso", value)
	h.attachTo(netnstest.Uplink)
	h.hasDecapXDP(netnstest.Uplink, yes)
}

// TestGather: TCP segments that arrive one by one leave the device as super-packets,
// also after a change of the uplink's offloads.
func TestGather(t *testing.T) {
	eachHook(t, func(t *testing.T, old bool) { testGather(t, families{}, old) })
	for _, f := range laterFamilies {
		t.Run(f.String(), func(t *testing.T) {
			f.require(t)
			testGather(t, f, false)
		})
	}
}

func testGather(t *testing.T, f families, old bool) {
	_, hosts := newHostsOf(t, f, old, true, true)
	a, b := hosts[0], hosts[1]
	for _, segmented := range []bool{false, true, false, true} {
		a.segmented(segmented)
		b.segmented(segmented)
		arrived, unwrapped := b.capture(netnstest.Uplink), b.capture(deviceName)
		before := b.statsOf(a.subnet)
		r := iperf(t, a.Host, b.Host, b.inner(), "-n", "50M")
		t.Logf("segmented %v: %.1f Gb/s", segmented, r.End.SumReceived.BitsPerSecond/1e9)
		if n := largest(t, arrived); n <= 1500 && !segmented {
			t.Errorf("super-packets on: the largest to arrive has %d bytes", n)
		}
		if n := largest(t, unwrapped); n <= 1500 {
			t.Errorf("segmented %v: the largest packet out of the device has %d bytes", segmented, n)
		}
		// The count is of packets on the wire. Some may be lost: veth queues 256 frames
		// at most. The last ones may not have arrived yet.
		sent := a.statsOf(b.subnet)
		if n := b.statsOf(a.subnet); n.RxPackets-before.RxPackets < 30000 || n.RxPackets > sent.TxPackets || n.RxBytes-before.RxBytes < 40e6 {
			t.Errorf("segmented %v: b counts %d packets, %d bytes, %+v before; a %d packets", segmented, n.RxPackets, n.RxBytes, before, sent.TxPackets)
		}
		run(t, a.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", "-s", "4000", b.inner().String())
	}
	untouched(t, a, b)
}

// largest returns the length of the largest captured packet.
func largest(t *testing.T, fd int) (n int) {
	t.Helper()
	packet := make([]byte, 1<<16)
	for {
		got, _, err := unix.Recvfrom(fd, packet, unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		n = max(n, got)
	}
}

// TestHardwareAddress: decap_xdp sees frames before the kernel checks their destination.
// The path must not handle frames to other hosts or to all.
func TestHardwareAddress(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	toSocket := make(chan []byte, 1)
	b.mu.Lock()
	b.odd = func(p []byte) { toSocket <- bytes.Clone(p) }
	b.mu.Unlock()
	device := listenInner(b)
	f := frame{outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner()}
	for _, segmented := range []bool{false, true} {
		b.segmented(segmented)
		b.must(b.Netlink().SetPromiscOn(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: b.link(netnstest.Uplink)}}))
		w := newWire(a, b, netnstest.Uplink, netnstest.Uplink)
		ours := w.to.Addr

		// The switch floods frames to an unknown address.
		w.to.Addr = [8]byte{0x02, 0, 0, 0, 0, 0x99}
		f.payload = []byte("another's")
		w.send(f.bytes())
		w.to.Addr = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		f.payload = []byte("everybody's")
		w.send(f.bytes())
		if got := wait(t, toSocket); !bytes.HasSuffix(got, f.payload) {
			t.Errorf("segmented %v: the socket got %q", segmented, got)
		}
		w.to.Addr = ours
		f.payload = []byte("ours")
		w.send(f.bytes())
		if _, text := device.receive(t); text != "ours" {
			t.Errorf("segmented %v: the device got %q", segmented, text)
		}
	}
}

// TestXDPIsTaken: another XDP program at the interface stays, and the path works without
// decap_xdp.
func TestXDPIsTaken(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	a.segmented(true)
	c := a.config()
	c.Port++
	c.Device = a.link("lo") // any other
	second := &host{Host: a.Host, t: t, subnet: netip.MustParsePrefix("10.5.99.0/24"), device: c.Device}
	second.load(c)
	second.attachTo(netnstest.Uplink)
	if why := second.path.XDPRefusals()[a.link(netnstest.Uplink)]; !errors.Is(why, errXDPTaken) {
		t.Errorf("the reason of the second is %v, want %v", why, errXDPTaken)
	}
	run(t, b.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", a.inner().String())
	a.hasDecapXDP(netnstest.Uplink, true)
}

// Without XDP for frames of several buffers, an uplink with a large MTU has the reason
// against XDP in words.
func TestXDPLargeMTU(t *testing.T) {
	lab, hosts := newHostsBy(t, true, true, true)
	a, b := hosts[0], hosts[1]
	const direct = "direct"
	lab.Wire(a.Host, direct, b.Host, direct, 9000)
	run(t, a.Host, "ethtool", "-K", direct, "gro", "on", "tso", "off")
	a.attachTo(direct)
	if why := a.path.XDPRefusals()[a.link(direct)]; !errors.Is(why, errLargeMTU) {
		t.Errorf("the reason is %v, want %v", why, errLargeMTU)
	}
}

// An uplink whose driver has no XDP, as a bridge, has the reason in words.
func TestXDPWithoutDriver(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a := hosts[0]
	const bridge = "bridge"
	a.Bridge(bridge, netip.MustParsePrefix("192.0.2.1/24"), 1500)
	a.attachTo(netnstest.Uplink, bridge)
	if why := a.path.XDPRefusals()[a.link(bridge)]; !errors.Is(why, errNoNative) {
		t.Errorf("the reason is %v, want %v", why, errNoNative)
	}
}
