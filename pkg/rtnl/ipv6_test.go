package rtnl

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

const device6 = "flannel-v6.1"

var (
	network6 = netip.MustParsePrefix("fd00:5::/48")
	address6 = netip.MustParsePrefix("fd00:5:0:ffff::/128")
)

// newBench6 is newBench for IPv6. The uplink has fd00:77::1/64.
func newBench6(t testing.TB) *bench {
	t.Helper()
	netnstest.Require(t)
	b := &bench{t, netnstest.New(t).Host("a"), inet.IPv6, device6}
	b.ip("addr add fd00:77::1/64 dev eth0 nodad")
	return b
}

// reconciler6 has a Prepare that makes the device as a backend does.
func (b *bench) reconciler6() *Reconciler {
	b.t.Helper()
	var k *Reconciler
	k = b.reconciler(Config{Network: network6, Device: device6, Uplink: netnstest.Uplink, Prepare: func() error { return ensure6(k) }})
	return k
}

func ensure6(k *Reconciler) error {
	uplink, err := k.Links.LinkByName(netnstest.Uplink)
	if err != nil {
		return err
	}
	l, err := k.Links.LinkByName(device6)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device6
		l = &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472, SrcAddr: netip.MustParseAddr("fd00:77::1").AsSlice(), VtepDevIndex: uplink.Attrs().Index}
		if err = k.Links.LinkAdd(l); err == nil {
			l, err = k.Links.LinkByName(device6)
		}
	}
	if err != nil {
		return err
	}
	return k.EnsureUp(l, address6, 1430)
}

func peer6(n int) State {
	subnet := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 0, 0, byte(n >> 8), byte(n)}), 64)
	host := netip.AddrFrom16([16]byte{0xfd, 0, 0, 0x99, 14: byte(n >> 8), 15: byte(n)})
	mac := MAC{0x0e, 6, 0, 0, byte(n >> 8), byte(n)}
	return State{
		Routes: []Route{{Dst: subnet, Via: subnet.Addr(), Dev: device6, Kind: OnLink}},
		Neighs: []Neigh{{IP: subnet.Addr(), MAC: mac}, {IP: host, MAC: mac, FDB: true}},
	}
}

func peers6(from, to int) State {
	var all State
	for n := from; n < to; n++ {
		all = join(all, peer6(n))
	}
	return all
}

// byUplink6 is a route of host-gw.
func byUplink6(n int, via string) Route {
	return Route{Dst: peer6(n).Routes[0].Dst, Via: netip.MustParseAddr(via), Dev: netnstest.Uplink}
}

func TestIPv6MakesAndRemoves(t *testing.T) {
	b := newBench6(t)
	k := b.reconciler6()
	b.exchange(k, State{}, peers6(0, 300))
	b.check(pass(k))
	b.expect(peers6(0, 300))
	b.check(k.Check())
	// An earlier run's entries.
	wrong := peer6(150)
	wrong.Neighs[0].MAC[5]++
	wrong.Neighs[1].IP = wrong.Neighs[1].IP.Next()
	b.exchange(k, peer6(150), wrong)
	b.ip("-6 route add fd00:5:0:7::/64 metric 7 dev " + device6 + " proto 85")
	b.ip("-6 route add fd00:5:0:9000::/64 via fd00:5:0:9000:: dev " + device6 + " onlink")
	b.ip("-6 neigh add fd00:5:0:9000:: lladdr 0e:00:00:00:00:77 nud permanent dev " + device6)
	next := b.reconciler6()
	want := join(peers6(100, 400), State{Routes: []Route{byUplink6(500, "fd00:77::9")}})
	b.exchange(next, State{}, want)
	b.check(pass(next))
	b.expect(want)
	// A single peer changes without a pass.
	moved := peer6(100)
	moved.Neighs[1].IP = moved.Neighs[1].IP.Next()
	b.exchange(next, peer6(100), moved)
	b.expect(join(moved, join(peers6(101, 400), State{Routes: []Route{byUplink6(500, "fd00:77::9")}})))
	b.replace(next, State{})
	b.check(pass(next))
	b.expect(State{})
}

// A peer that comes onto the uplink's link and leaves it again.
func TestIPv6RouteMoves(t *testing.T) {
	b := newBench6(t)
	k := b.reconciler6()
	overlay, direct := peer6(1), byUplink6(1, "fd00:77::9")
	direct.Kind = OnLink
	b.exchange(k, State{}, overlay)
	b.check(pass(k))
	b.run(k)
	b.exchange(k, overlay, State{Routes: []Route{direct}})
	eventually(t, func() error { return b.difference(State{Routes: []Route{direct}}) })
	b.exchange(k, State{Routes: []Route{direct}}, overlay)
	eventually(t, func() error { return b.difference(overlay) })
}

func TestIPv6Repair(t *testing.T) {
	b := newBench6(t)
	k := b.reconciler6()
	want := join(peers6(1, 50), State{Routes: []Route{byUplink6(200, "fd00:77::9")}})
	b.exchange(k, State{}, want)
	b.check(pass(k))
	b.run(k)
	p := peer6(7)
	dst, ip, mac := p.Routes[0].Dst.String(), p.Neighs[0].IP.String(), p.Neighs[1].MAC.String()
	address := func() error {
		l, err := b.host.Netlink().LinkByName(device6)
		if err != nil {
			return err
		}
		have, err := b.host.Netlink().AddrList(l, unix.AF_INET6)
		if err != nil || len(have) != 1 || prefixOf(have[0].IPNet) != address6 {
			return fmt.Errorf("addresses %v, %v", have, err)
		}
		return nil
	}
	for _, harm := range []string{
		"-6 route del " + dst,
		"-6 route add fd00:5:0:99::/64 via fd00:5:0:99:: dev " + device6 + " onlink",
		"-6 route del " + want.Routes[len(want.Routes)-1].Dst.String(),
		"-6 neigh del " + ip + " dev " + device6,
		"-6 neigh replace " + ip + " lladdr 0e:00:00:00:99:99 nud permanent dev " + device6,
		"-6 neigh add fd00:5:0:99:: lladdr 0e:00:00:00:99:99 nud permanent dev " + device6,
		"bridge fdb del " + mac + " dev " + device6 + " dst " + p.Neighs[1].IP.String(),
		"bridge fdb replace " + mac + " dev " + device6 + " dst fd00:99::ffff",
		"-6 addr flush dev " + device6,
		"-6 addr add fd00:5::9/64 dev " + device6,
		"link set " + device6 + " down",
		"link del " + device6,
	} {
		t.Run(harm, func(t *testing.T) {
			inner := &bench{t, b.host, b.family, b.device}
			inner.ip(harm)
			took := eventually(t, func() error { return errors.Join(inner.difference(want), address()) })
			t.Logf("repaired after %v", took)
		})
	}
	// The uplink's own address goes with the link; with it come the routes.
	t.Run("uplink", func(t *testing.T) {
		b.host.Down(netnstest.Uplink)
		b.host.Up(netnstest.Uplink)
		b.ip("addr replace fd00:77::1/64 dev eth0 nodad")
		eventually(t, func() error { return errors.Join(b.difference(want), address()) })
	})
}

// What the backend's device must be like, also where new devices have no IPv6.
func TestIPv6Device(t *testing.T) {
	b := newBench6(t)
	b.host.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	k := b.reconciler6()
	b.check(ensure6(k))
	b.check(ensure6(k))
	b.check(CheckUp(b.host.Netlink(), device6, address6, 1430))
	l, err := b.host.Netlink().LinkByName(device6)
	b.check(err)
	addrs, err := b.host.Netlink().AddrList(l, unix.AF_INET6)
	b.check(err)
	if len(addrs) != 1 || prefixOf(addrs[0].IPNet) != address6 || addrs[0].Flags&unix.IFA_F_NODAD == 0 {
		t.Errorf("addresses %+v, want %v without duplicate address detection", addrs, address6)
	}
	out, err := b.host.Command(t.Context(), "sysctl", "-n", "net.ipv6.conf."+strings.ReplaceAll(device6, ".", "/")+".accept_ra",
		"net.ipv6.conf."+strings.ReplaceAll(device6, ".", "/")+".keep_addr_on_down").Output()
	if fields := strings.Fields(string(out)); err != nil || !slices.Equal(fields, []string{"0", "1"}) {
		t.Errorf("accept_ra and keep_addr_on_down are %q, %v", fields, err)
	}
	b.host.Down(device6)
	if err := CheckUp(b.host.Netlink(), device6, address6, 1430); err == nil {
		t.Error("a device that is down passes the check")
	}
	// An earlier lease's address goes, the kernel's link-local one stays.
	b.ip("addr add fd00:5:0:1::/128 dev " + device6 + " nodad")
	b.ip("addr add fe80::9/64 dev " + device6 + " nodad")
	b.check(ensure6(k))
	b.check(CheckUp(b.host.Netlink(), device6, address6, 1430))
	if all := b.ip("-6 addr show dev " + device6); strings.Contains(all, "fd00:5:0:1::/128") || !strings.Contains(all, "fe80::9/64") {
		t.Errorf("addresses\n%s", all)
	}
}

func TestIPv6Refusals(t *testing.T) {
	b := newBench6(t)
	k := b.reconciler(Config{Network: network6, Uplink: netnstest.Uplink})
	good, far, blocked := byUplink6(1, "fd00:77::9"), byUplink6(2, "2001:db8::1"), byUplink6(3, "fd00:77::9")
	b.ip("-6 route add " + blocked.Dst.String() + " via fd00:77::8")
	prohibit := Route{Dst: network6, Kind: Prohibit, Metric: math.MaxUint32}
	b.exchange(k, State{}, State{Routes: []Route{good, far, blocked, prohibit}})
	b.check(pass(k))
	routes := func(want ...Route) error {
		b := &bench{b.t, b.host, b.family, netnstest.Uplink}
		have, err := b.kernel()
		if h, w := sorted(State{Routes: have.Routes}), sorted(State{Routes: want}); err != nil || h != w {
			return fmt.Errorf("the kernel has\n%s\nwant\n%s, %v", h, w, err)
		}
		return nil
	}
	b.check(routes(good, prohibit))
	refused := k.Refusals()
	if err := refused[far.Dst]; err == nil || !errors.Is(err, ErrNotOnLink) {
		t.Errorf("route to a gateway that is not on the link: %v", err)
	}
	if err := refused[blocked.Dst]; err == nil || !errors.Is(err, ErrForeign) {
		t.Errorf("route in place of another program's: %v", err)
	}
	b.run(k)
	b.ip("-6 route del " + blocked.Dst.String() + " via fd00:77::8")
	b.ip("addr add 2001:db8::2/64 dev eth0 nodad")
	eventually(t, func() error { return routes(good, far, blocked, prohibit) })
	b.check(b.host.Do(func() error {
		return errors.Join(RemoveRoutes(network6, Gateway), RemoveRoutes(network6, Prohibit))
	}))
}

// Interfaces answers for hosts of both families at once.
func TestReachBothFamilies(t *testing.T) {
	b := newBench6(t)
	b.ip("link add other type bridge")
	b.ip("link set other up")
	b.ip("addr add fd00:78::1/64 dev other nodad")
	b.ip("-6 route add fd00:77::/64 dev other metric 5000")
	b.ip("-6 route add fd00:88::/64 nexthop via fd00:77::2 nexthop via fd00:78::2")
	index := func(name string) uint32 {
		l, err := b.host.Netlink().LinkByName(name)
		b.check(err)
		return uint32(l.Attrs().Index)
	}
	up, other := index(netnstest.Uplink), index("other")
	both := []uint32{min(up, other), max(up, other)}
	want := map[string][]uint32{"192.168.77.9": {up}, "fd00:77::9": both, "fd00:78::9": {other}, "fd00:88::9": both, "2001:db8::1": nil}
	var hosts []netip.Addr
	for a := range want {
		hosts = append(hosts, netip.MustParseAddr(a))
	}
	b.check(b.host.Do(func() error {
		r, err := NewReach()
		if err != nil {
			return err
		}
		defer r.Close()
		got, err := r.Interfaces(hosts)
		for a, links := range want {
			if !slices.Equal(got[netip.MustParseAddr(a)], links) {
				t.Errorf("to %s by %v, want %v", a, got[netip.MustParseAddr(a)], links)
			}
		}
		return err
	}))
}

// A device that serves networks of both families outlives the end of one: that one's
// addresses and routes go, and the device with the last one.
func TestRemoveDeviceOfBothFamilies(t *testing.T) {
	b := newBench(t)
	protocol := fmt.Sprint(int(Protocol))
	b.ip("addr add " + address6.String() + " dev " + device + " nodad")
	b.ip("-6 route add " + network6.String() + " dev " + device + " proto " + protocol)
	b.ip("-6 route add fd00:99::/64 dev " + device + " proto " + protocol)
	remove := func(network netip.Prefix) {
		b.check(b.host.Do(func() error { return RemoveDevices(network, "vxlan", func(name string) bool { return name == device }) }))
	}
	remove(network6)
	if text := b.ip("-6 addr show dev " + device); strings.Contains(text, "fd00:5:") {
		t.Errorf("the address stays: %s", text)
	}
	if text := b.ip("-6 route show dev " + device); strings.Contains(text, "fd00:5:") || !strings.Contains(text, "fd00:99::/64") {
		t.Errorf("the routes are %s", text)
	}
	if text := b.ip("addr show dev " + device); !strings.Contains(text, "10.5.255.0/32") {
		t.Errorf("the other network's address is gone: %s", text)
	}
	remove(network)
	if b.host.HasLink(device) {
		t.Error("the device is still there")
	}
}
