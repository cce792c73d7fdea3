package rtnl

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// patience bounds every wait for what must happen.
const patience = 20 * time.Second

const device = "flannel.1"

var network = netip.MustParsePrefix("10.5.0.0/16")

// bench is a host with an uplink in 192.168.77.0/24 and, as most tests need it,
// a VXLAN device.
type bench struct {
	t      testing.TB
	host   *netnstest.Host
	family inet.Family
	device string
}

func newBench(t testing.TB) *bench {
	t.Helper()
	netnstest.Require(t)
	b := &bench{t, netnstest.New(t).Host("a"), inet.IPv4, device}
	b.addDevice()
	return b
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// addDevice makes the device and gives it the address 10.5.255.0.
func (b *bench) addDevice() {
	b.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = device
	b.check(b.host.Netlink().LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472}))
	b.host.AddAddr(device, netip.MustParsePrefix("10.5.255.0/32"))
	b.host.Up(device)
}

func (b *bench) reconciler(c Config) *Reconciler {
	b.t.Helper()
	var k *Reconciler
	b.check(b.host.Do(func() (err error) {
		k, err = New(c)
		return err
	}))
	b.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return k
}

func config() Config { return Config{Network: network, Device: device, Uplink: netnstest.Uplink} }

// run runs the reconciler to the end of the test.
func (b *bench) run(k *Reconciler) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("Run: %v", err)
		}
	})
}

// ip runs ip(8), or bridge(8) where that is the first word, inside the host.
func (b *bench) ip(args string) string {
	b.t.Helper()
	words := strings.Fields(args)
	if words[0] != "bridge" {
		words = append([]string{"ip"}, words...)
	}
	out, err := b.host.Command(context.Background(), words[0], words[1:]...).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// peer is what a VXLAN backend wants for the n-th peer.
func peer(n int) State {
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, byte(n >> 6), byte(n << 2)}), 30)
	host := netip.AddrFrom4([4]byte{172, 16 + byte(n>>16), byte(n >> 8), byte(n)})
	mac := MAC{0x0e, 0, 0, 0, byte(n >> 8), byte(n)}
	return State{
		Routes: []Route{{Dst: subnet, Via: subnet.Addr(), Dev: device, Kind: OnLink}},
		Neighs: []Neigh{{IP: subnet.Addr(), MAC: mac}, {IP: host, MAC: mac, FDB: true}},
	}
}

func peers(from, to int) State {
	var all State
	for n := from; n < to; n++ {
		all = join(all, peer(n))
	}
	return all
}

// exchange changes what is desired.
func (b *bench) exchange(k *Reconciler, remove, add State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.change([]State{remove}, []State{add})
}

// pass makes a pass, as Reset does.
func pass(k *Reconciler) error {
	k.mu.Lock()
	if k.owners == nil {
		k.owners = make(map[netip.Prefix]State)
	}
	k.mu.Unlock()
	err := k.pass()
	if err != nil {
		k.Wake()
	}
	return err
}

// replace makes s all that is desired, as of the next pass.
func (b *bench) replace(k *Reconciler, s State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.want = newDesired()
	k.want.routes.add(s.Routes)
	k.want.neighs.add(s.Neighs)
}

func join(a, b State) State {
	return State{append(a.Routes, b.Routes...), append(a.Neighs, b.Neighs...)}
}

// kernel is what the kernel has of ours, found by another way than the one
// under test: package netlink's decoders.
func (b *bench) kernel() (State, error) {
	var s State
	h := b.host.Netlink()
	routes, err := h.RouteListFiltered(b.family.AF(), &netlink.Route{Protocol: Protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return s, err
	}
	for _, r := range routes {
		out := Route{Dst: prefixOf(r.Dst), Metric: uint32(r.Priority), Kind: Link}
		out.Via = addrOf(r.Gw)
		if b.family == inet.IPv6 && out.Metric == ipv6Metric {
			out.Metric = 0
		}
		switch {
		case r.Type == unix.RTN_PROHIBIT:
			out.Kind = Prohibit
		case r.Type == unix.RTN_BLACKHOLE:
			out.Kind = Blackhole
		case r.Flags&int(netlink.FLAG_ONLINK) != 0:
			out.Kind = OnLink
		case out.Via.IsValid():
			out.Kind = Gateway
		}
		if out.Kind != Prohibit && out.Kind != Blackhole {
			l, err := h.LinkByIndex(r.LinkIndex)
			if err != nil {
				return s, err
			}
			out.Dev = l.Attrs().Name
		}
		s.Routes = append(s.Routes, out)
	}
	l, err := h.LinkByName(b.device)
	if err != nil {
		return s, err
	}
	for _, family := range []int{b.family.AF(), unix.AF_BRIDGE} {
		entries, err := h.NeighList(l.Attrs().Index, family)
		if err != nil {
			return s, err
		}
		for _, e := range entries {
			if e.State&netlink.NUD_PERMANENT == 0 {
				continue
			}
			s.Neighs = append(s.Neighs, Neigh{addrOf(e.IP), MAC(e.HardwareAddr), family == unix.AF_BRIDGE})
		}
	}
	return s, nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addrOf(n.IP), ones)
}

// addrOf is the zero Addr for no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// sorted makes a State comparable.
func sorted(s State) string {
	var lines []string
	for _, r := range s.Routes {
		lines = append(lines, fmt.Sprintf("route %v metric %d kind %d", r, r.Metric, r.Kind))
	}
	for _, n := range s.Neighs {
		lines = append(lines, n.String())
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// difference is nil if the kernel has exactly want.
func (b *bench) difference(want State) error {
	have, err := b.kernel()
	if err != nil {
		return err
	}
	if h, w := sorted(have), sorted(want); h != w {
		return fmt.Errorf("the kernel has\n%s\nwant\n%s", h, w)
	}
	return nil
}

func (b *bench) expect(want State) {
	b.t.Helper()
	b.check(b.difference(want))
}

// eventually polls until check has nothing to complain of, and returns how
// long that took.
func eventually(t testing.TB, check func() error) time.Duration {
	t.Helper()
	began := time.Now()
	deadline := time.After(patience)
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for {
		err := check()
		if err == nil {
			return time.Since(began)
		}
		select {
		case <-poll.C:
		case <-deadline:
			t.Fatalf("not within %v: %v", patience, err)
		}
	}
}
