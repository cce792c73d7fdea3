package bpf

import (
	"errors"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/netnstest"
)

// TestJoin: without XDP, segments of TCP that arrive one by one leave the device as
// super-packets. Super-packets that arrive whole do not take that way.
func TestJoin(t *testing.T) { eachFamilies(t, testJoin) }

func testJoin(t *testing.T, f families) {
	_, hosts := newHostsOf(t, f, false, true, true)
	a, b := hosts[0], hosts[1]
	b.segmented(false)
	b.joins(netnstest.Uplink)
	first, _ := netdev.Segmenter(deviceName)
	for _, single := range []bool{false, true, false} {
		a.cuts(single)
		before, unwrapped := b.receivedBy(first), b.capture(deviceName)
		counted := b.statsOf(a.subnet).RxPackets
		iperf(t, a.Host, b.Host, b.inner(), "-n", "20M")
		if n := largest(t, unwrapped); n <= 1500 {
			t.Errorf("single %v: the largest packet out of the device has %d bytes", single, n)
		}
		counted = b.statsOf(a.subnet).RxPackets - counted
		switch joined := b.receivedBy(first) - before; {
		case single && joined < counted/2:
			t.Errorf("of %d packets, mostly single segments, %d took the way by %s", counted, joined, first)
		case !single && joined > counted/2:
			t.Errorf("of %d packets, mostly in super-packets, %d took the way by %s", counted, joined, first)
		}
		run(t, a.Host, "ping", "-c", "3", "-i", "0.01", "-w", "5", "-s", "4000", b.inner().String())
	}
	untouched(t, a, b)
}

// joins fails the test unless the path joins segments of these uplinks. It skips it if
// the kernel cannot.
func (h *host) joins(uplinks ...string) {
	h.t.Helper()
	_, second := netdev.Segmenter(deviceName)
	var o netdev.Offloads
	h.must(h.Do(func() (err error) {
		o, err = netdev.OffloadsOf(second)
		return err
	}))
	if o.GRO {
		netnstest.VethGRO.Skip(h.t, "GRO of "+second+" is on from the start")
	}
	var s flannelSegmenter
	h.must(h.path.Segmenter.Lookup(uint32(0), &s))
	var want [MaxUplinks]uint32
	for i, name := range uplinks {
		want[i] = uint32(h.link(name))
	}
	if s.Joined != want {
		h.t.Fatalf("the uplinks whose segments are joined are %v, want %v", s.Joined, want)
	}
}

// cuts has the host send segments one by one, or super-packets whole.
func (h *host) cuts(yes bool) {
	h.t.Helper()
	value := "on"
	if yes {
		value = "off"
	}
	run(h.t, h.Host, "ethtool", "-K", netnstest.Uplink, "tso", value, "gso", value)
}

// receivedBy returns the number of packets that a device has received.
func (h *host) receivedBy(device string) uint64 {
	h.t.Helper()
	l, err := h.Netlink().LinkByName(device)
	h.must(err)
	return l.Attrs().Statistics.RxPackets
}

// TestJoinOnlyWithoutXDP: where decap_xdp unwraps, segments are not joined.
func TestJoinOnlyWithoutXDP(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	b := hosts[1]
	b.segmented(false)
	b.joins(netnstest.Uplink)
	b.segmented(true)
	b.joins()
	b.segmented(false)
	b.joins(netnstest.Uplink)
}

// TestJoinWithoutGRO: a veth pair begins without GRO, and segments are joined behind it.
// Another device is without GRO on purpose.
func TestJoinWithoutGRO(t *testing.T) {
	_, hosts := newHosts(t, true, true)
	a, b := hosts[0], hosts[1]
	b.segmented(true)
	run(t, b.Host, "ethtool", "-K", netnstest.Uplink, "gro", "off")
	for _, args := range []string{"link add other type bridge", "link set other up"} {
		run(t, b.Host, "ip", strings.Fields(args)...)
	}
	run(t, b.Host, "ethtool", "-K", "other", "gro", "off")
	b.attachTo(netnstest.Uplink, "other")
	b.hasDecapXDP(netnstest.Uplink, false)
	if why := b.path.XDPRefusals()[b.link("other")]; !errors.Is(why, errNoGRO) {
		t.Errorf("the reason against XDP at a bridge is %v, want %v", why, errNoGRO)
	}
	b.joins(netnstest.Uplink)
	a.cuts(true)
	unwrapped := b.capture(deviceName)
	iperf(t, a.Host, b.Host, b.inner(), "-n", "20M")
	if n := largest(t, unwrapped); n <= 1500 {
		t.Errorf("the largest packet out of the device has %d bytes", n)
	}
}
