package rtnl

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

func TestPassMakesAndRemoves(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.exchange(k, State{}, peers(0, 300))
	b.expect(State{}) // nothing before Reset: it is not known yet what is too much
	b.check(pass(k))
	b.expect(peers(0, 300))
	b.replace(k, peers(100, 400))
	b.check(pass(k))
	b.expect(peers(100, 400))
}

// An earlier run has left entries, some of them of peers that are gone, some
// wrong.
func TestLeftOversOfAnEarlierRun(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.exchange(k, State{}, peers(0, 10))
	b.check(pass(k))

	wrong := peer(5)
	wrong.Routes[0].Kind, wrong.Routes[0].Via = Link, netip.Addr{}
	wrong.Neighs[0].MAC[5]++
	wrong.Neighs[1].IP = wrong.Neighs[1].IP.Next()
	b.replace(k, join(peers(0, 5), wrong))
	b.check(pass(k))
	b.ip("route add 10.5.0.12/30 metric 7 dev " + device + " proto 85")
	b.ip("bridge fdb append " + peer(3).Neighs[1].MAC.String() + " dev " + device + " dst 172.31.0.1")
	// Those of another generation, whose routes say nothing of who made them.
	b.ip("route add 10.5.77.0/24 via 10.5.77.0 dev " + device + " onlink")
	b.ip("neigh add 10.5.77.0 lladdr 0e:00:00:00:00:77 nud permanent dev " + device)

	next := b.reconciler(config())
	b.exchange(next, State{}, peers(3, 8))
	b.check(pass(next))
	b.expect(peers(3, 8))
}

// Change alone, without a pass: the cost of one peer among many.
func TestChangeActsAtOnce(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	b.exchange(k, State{}, peer(1))
	b.expect(peer(1))
	moved := peer(1)
	moved.Neighs[1].IP = moved.Neighs[1].IP.Next()
	b.exchange(k, peer(1), moved)
	b.expect(moved)
	other := peer(1)
	other.Neighs[0].MAC[0] ^= 4
	other.Neighs[1].MAC[0] ^= 4
	other.Routes[0].Kind, other.Routes[0].Via = Link, netip.Addr{}
	b.exchange(k, moved, other)
	b.expect(other)
	b.exchange(k, other, State{})
	b.expect(State{})
}

// Two subnets of one host share its forwarding entry: it stays until both are
// gone. Of two hosts with one MAC, the latest counts.
func TestOwnersShare(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	first, second := peer(1), peer(2)
	second.Neighs[0].MAC, second.Neighs[1] = first.Neighs[0].MAC, first.Neighs[1]
	k.Update(map[netip.Prefix]State{first.Routes[0].Dst: first})
	k.Update(map[netip.Prefix]State{second.Routes[0].Dst: second})
	k.Update(map[netip.Prefix]State{first.Routes[0].Dst: {}})
	b.expect(second)
	clone := peer(3)
	clone.Neighs[1].MAC, clone.Neighs[0].MAC = second.Neighs[1].MAC, second.Neighs[1].MAC
	k.Update(map[netip.Prefix]State{clone.Routes[0].Dst: clone})
	both := join(second, clone)
	both.Neighs = slices.Delete(both.Neighs, 1, 2) // the forwarding entry of second
	b.expect(both)
	k.Update(map[netip.Prefix]State{clone.Routes[0].Dst: {}})
	b.expect(second)
	k.Update(map[netip.Prefix]State{second.Routes[0].Dst: {}})
	b.expect(State{})
}

// Each owner has what it was given last.
func TestUpdate(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	first, second := peer(1).Routes[0].Dst, peer(2).Routes[0].Dst
	k.Update(map[netip.Prefix]State{first: peer(4)})
	b.expect(State{})
	b.check(k.Reset(map[netip.Prefix]State{first: peer(1), second: peer(2)}))
	b.expect(join(peer(1), peer(2)))
	k.Update(map[netip.Prefix]State{first: peer(3)})
	b.expect(join(peer(2), peer(3)))
	k.Update(map[netip.Prefix]State{first: {}, second: peer(2)})
	b.expect(peer(2))
	k.Update(map[netip.Prefix]State{second: {}})
	b.expect(State{})
	if len(k.owners) != 0 {
		t.Errorf("owners of nothing: %v", k.owners)
	}
}

// Reset is one pass, and Update none.
func TestResetAndUpdate(t *testing.T) {
	b := newBench(t)
	passes := 0
	c := config()
	c.Prepare = func() error { passes++; return nil }
	k := b.reconciler(c)
	dst := func(n int) netip.Prefix { return peer(n).Routes[0].Dst }
	b.check(k.Reset(map[netip.Prefix]State{dst(0): peer(0)}))
	b.expect(peers(0, 1))
	for n := 1; n < 3; n++ {
		k.Update(map[netip.Prefix]State{dst(n): peer(n)})
		b.expect(peers(0, n+1))
	}
	if passes != 1 {
		t.Errorf("%d passes, want one", passes)
	}
	b.check(k.Reset(map[netip.Prefix]State{dst(7): peer(7)}))
	b.expect(peer(7))
	b.check(k.Reset(nil))
	b.expect(State{})
}

// Prepare may change what is desired, in the first pass, too.
func TestPrepareUpdates(t *testing.T) {
	b := newBench(t)
	c := config()
	var k *Reconciler
	c.Prepare = func() error {
		k.Update(map[netip.Prefix]State{peer(1).Routes[0].Dst: peer(2)})
		return nil
	}
	k = b.reconciler(c)
	b.check(k.Reset(map[netip.Prefix]State{peer(1).Routes[0].Dst: peer(1)}))
	b.expect(peer(2))
	if len(k.changed) != 0 {
		t.Error("the first pass asks for another one")
	}
}

// A route into the tunnel of another flannel on this host is not ours, though it
// has our protocol number.
func TestOtherTunnelsRouteStays(t *testing.T) {
	b := newBench(t)
	b.ip("link add flannel9 type bridge")
	b.ip("link set flannel9 up")
	b.ip("route add " + network.String() + " dev flannel9 proto 85")
	k := b.reconciler(config())
	b.exchange(k, State{}, State{Routes: []Route{{Dst: network, Dev: device, Kind: Link}}})
	b.check(pass(k))
	b.expect(State{Routes: []Route{{Dst: network, Dev: "flannel9", Kind: Link}}})
	if err := k.Refusals()[network]; err == nil || !errors.Is(err, ErrForeign) {
		t.Errorf("refusal: %v", err)
	}
}

// Another program's route that is the same as ours serves. It is not taken over, not
// changed and not deleted.
func TestSameRouteStays(t *testing.T) {
	for _, protocol := range []string{"static", "boot", "bird"} {
		for _, test := range []struct {
			what, foreign string
			route, next   Route
		}{
			{"by the uplink", "10.5.4.0/24 via 192.168.77.254 dev eth0 proto " + protocol, Route{
				Dst: netip.MustParsePrefix("10.5.4.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink,
			}, Route{
				Dst: netip.MustParsePrefix("10.5.4.0/24"), Via: netip.MustParseAddr("192.168.77.253"), Dev: netnstest.Uplink,
			}},
			{"by our device", network.String() + " dev " + device + " proto " + protocol,
				Route{Dst: network, Dev: device, Kind: Link}, Route{Dst: network, Dev: device, Kind: OnLink, Via: netip.MustParseAddr("10.5.0.9")}},
		} {
			t.Run(test.what+" "+protocol, func(t *testing.T) {
				b := newBench(t)
				b.ip("route add " + test.foreign)
				show := func() string { return b.ip("route show " + test.route.Dst.String()) }
				before := show()
				k := b.reconciler(config())
				want, next := State{Routes: []Route{test.route}}, State{Routes: []Route{test.next}}
				b.exchange(k, State{}, want)
				b.check(pass(k))
				b.check(k.Check())
				if refused := k.Refusals(); len(refused) != 0 || show() != before {
					t.Errorf("refused %v, routes %q, were %q", refused, show(), before)
				}
				b.exchange(k, want, next)
				b.check(pass(k))
				if err := k.Refusals()[test.route.Dst]; !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), "ip route del "+test.route.Dst.String()) || show() != before {
					t.Errorf("changed: refusal %v, routes %q, were %q", err, show(), before)
				}
				b.exchange(k, next, State{})
				b.check(pass(k))
				if show() != before {
					t.Errorf("routes %q, were %q", show(), before)
				}
				// Ours comes when theirs goes.
				b.exchange(k, State{}, want)
				b.run(k)
				b.ip("route del " + test.foreign)
				eventually(t, func() error { return b.difference(want) })
			})
		}
	}
}

// Of several routes to one destination only ours changes, in whatever order the kernel
// has them.
func TestRoutesBesideOurs(t *testing.T) {
	for _, how := range []string{"append", "prepend"} {
		b := newBench(t)
		k := b.reconciler(config())
		old := Route{Dst: netip.MustParsePrefix("10.5.4.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink}
		next := old
		next.Via = netip.MustParseAddr("192.168.77.253")
		b.exchange(k, State{}, State{Routes: []Route{old}})
		b.check(pass(k))
		foreign := []string{"10.5.4.0/24 via 192.168.77.251 dev eth0 proto static", "10.5.4.0/24 via 192.168.77.252 dev eth0 proto 42"}
		for _, r := range foreign {
			b.ip("route " + how + " " + r)
		}
		b.check(pass(k))
		expect := func(when string) {
			t.Helper()
			routes := b.ip("route show 10.5.4.0/24")
			for _, r := range foreign {
				if !strings.Contains(routes, strings.TrimSuffix(r, "proto 42")) {
					t.Errorf("%s, %s: the route %s is gone from\n%s", how, when, r, routes)
				}
			}
		}
		expect("beside ours")
		b.exchange(k, State{Routes: []Route{old}}, State{Routes: []Route{next}})
		b.check(pass(k))
		expect("after a change")
		b.exchange(k, State{Routes: []Route{next}}, State{})
		b.check(pass(k))
		expect("after the end")
		if routes := b.ip("route show 10.5.4.0/24 proto 85"); routes != "" {
			t.Errorf("%s: ours stays: %s", how, routes)
		}
	}
}

// A device of another type that has the name of ours is another program's, with all
// that is on it.
func TestForeignDeviceStays(t *testing.T) {
	netnstest.Require(t)
	b := &bench{t, netnstest.New(t).Host("a"), inet.IPv4, device}
	b.host.Bridge(device, netip.MustParsePrefix("10.5.1.1/24"), 0)
	b.ip("neigh add 10.5.1.9 lladdr 0e:00:00:00:77:09 nud permanent dev " + device)
	b.ip("route add 10.5.200.0/24 dev " + device + " proto 42")
	c := config()
	c.DeviceTypes = []string{"vxlan"}
	k := b.reconciler(c)
	prohibit := State{Routes: []Route{{Dst: network, Kind: Prohibit, Metric: 1 << 31}}}
	b.exchange(k, State{}, prohibit)
	b.check(pass(k))
	if n, r := b.ip("neigh show dev "+device), b.ip("route show 10.5.200.0/24"); !strings.Contains(n, "PERMANENT") || r == "" {
		t.Errorf("neighbours %q, route %q", n, r)
	}
}

// A route whose successor is refused leads where nobody is any more.
func TestSuccessorIsRefused(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	old := Route{Dst: netip.MustParsePrefix("10.5.4.0/24"), Via: netip.MustParseAddr("192.168.77.250"), Dev: netnstest.Uplink}
	far := old
	far.Via = netip.MustParseAddr("203.0.113.7")
	b.exchange(k, State{}, State{Routes: []Route{old}})
	b.check(pass(k))
	b.exchange(k, State{Routes: []Route{old}}, State{Routes: []Route{far}}) // by a change
	b.expect(State{})
	b.replace(k, State{Routes: []Route{old}})
	b.check(pass(k))
	b.expect(State{Routes: []Route{old}})
	b.replace(k, State{Routes: []Route{far}}) // by a pass
	b.check(pass(k))
	b.expect(State{})
	if err := k.Refusals()[far.Dst]; err == nil || !errors.Is(err, ErrNotOnLink) {
		t.Errorf("refusal: %v", err)
	}
}

func TestRandomChanges(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	b.run(k)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	want := make(map[int]State)
	for range 500 {
		n := random.IntN(40)
		next := peer(n)
		switch random.IntN(4) {
		case 0:
			next = State{}
		case 1:
			next.Neighs[1].IP = netip.AddrFrom4([4]byte{172, 30, 0, byte(random.IntN(250))})
		case 2:
			next.Neighs[0].MAC[1] = byte(random.IntN(250))
			next.Neighs[1].MAC[1] = next.Neighs[0].MAC[1]
		}
		b.exchange(k, want[n], next)
		want[n] = next
	}
	var all State
	for _, s := range want {
		all = join(all, s)
	}
	b.expect(all)
}

// Everything that is not ours, of every kind, some of it in the midst of ours.
func TestForeignEntriesStay(t *testing.T) {
	b := newBench(t)
	b.host.Bridge("br0", netip.MustParsePrefix("10.5.1.1/24"), 0)
	b.ip("link add dummy7 type bridge")
	b.ip("link set dummy7 up")
	b.ip("addr add 10.7.0.1/24 dev dummy7")
	b.ip("link add vxlan7 type vxlan id 7 dstport 4789")
	b.ip("link set vxlan7 up")
	for _, foreign := range []string{
		"addr add 10.5.210.1/24 dev " + device,                                  // whose route is the kernel's
		"route add 10.5.200.0/24 dev dummy7",                                    // inside of the network
		"route add 10.5.201.0/24 via 192.168.77.254 proto static",               // by the uplink
		"route add 10.5.202.0/24 via 192.168.77.254 proto bird",                 //
		"route add 10.6.0.0/24 via 192.168.77.254 proto 85",                     // our number, another network
		"route add 10.5.203.0/24 via 192.168.77.254 proto 85 table 100",         // our number, another table
		"route add 10.4.0.0/14 dev dummy7",                                      // around the network
		"route add blackhole 10.5.204.0/24",                                     //
		"route add 10.8.0.0/24 via 10.8.0.0 dev " + device + " onlink proto 42", // on our device, another network
		"route add 10.9.0.0/24 nexthop via 192.168.77.254 nexthop via 10.7.0.2", //
		"neigh add 10.7.0.9 lladdr 0e:00:00:00:77:09 nud permanent dev dummy7",
		"neigh add 192.168.77.9 lladdr 0e:00:00:00:77:09 nud permanent dev eth0",
		"neigh add 10.5.88.0 lladdr 0e:00:00:00:77:08 nud stale dev " + device, // learned
		"neigh add proxy 10.5.89.0 dev " + device,
		"bridge fdb add 0e:00:00:00:77:07 dev vxlan7 dst 192.0.2.7",
		"bridge fdb add 0e:00:00:00:77:06 dev br0 self",
		"bridge fdb add 0e:00:00:00:77:05 dev " + device + " dst 192.0.2.5 dynamic", // learned
	} {
		b.ip(foreign)
	}
	foreign := func() string {
		var all strings.Builder
		for _, list := range []string{"route show table all", "neigh show", "neigh show proxy", "bridge fdb show", "-brief link", "-4 -brief addr", "rule"} {
			for line := range strings.Lines(b.ip(list)) {
				line = strings.TrimSpace(line)
				// IPv6 comes up in its own time, and states of what is learned age.
				if strings.Contains(line, "fe80:") || strings.Contains(line, "ff00:") || strings.Contains(line, "33:33:") || strings.Contains(line, "eth0 lladdr") && !strings.Contains(line, "PERMANENT") {
					continue
				}
				fmt.Fprintln(&all, line)
			}
		}
		return all.String()
	}
	before := foreign()
	k := b.reconciler(config())
	b.run(k)
	b.exchange(k, State{}, peers(0, 64))
	b.check(pass(k))
	if foreign() == before {
		t.Fatal("nothing changed; the comparison sees nothing")
	}
	b.exchange(k, peers(0, 64), State{})
	b.check(pass(k))
	b.check(b.host.Do(func() error {
		return errors.Join(RemoveRoutes(network, Gateway), RemoveRoutes(network, OnLink), RemoveRoutes(network, Link), RemoveRoutes(network, Prohibit))
	}))
	if after := foreign(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

func TestRemoveRoutes(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	gateway := Route{Dst: netip.MustParsePrefix("10.5.9.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink}
	b.exchange(k, State{}, join(peers(0, 3), State{Routes: []Route{gateway}}))
	b.check(pass(k))
	b.check(b.host.Do(func() error { return RemoveRoutes(network, Gateway) }))
	b.expect(peers(0, 3))
}

// A route that cannot be had is refused with its reason, alone, and had when
// that is over.
func TestRefusals(t *testing.T) {
	b := newBench(t)
	c := config()
	c.Device = ""
	k := b.reconciler(c)
	via := func(dst, gateway string) Route {
		return Route{Dst: netip.MustParsePrefix(dst), Via: netip.MustParseAddr(gateway), Dev: netnstest.Uplink}
	}
	good := via("10.5.2.0/24", "192.168.77.254")
	far := via("10.5.3.0/24", "203.0.113.1")
	blocked := via("10.5.4.0/24", "192.168.77.254")
	b.ip("route add 10.5.4.0/24 via 192.168.77.253")
	same := via("10.5.5.0/24", "192.168.77.254")
	b.ip("route add 10.5.5.0/24 via 192.168.77.254") // another program's, which serves
	b.exchange(k, State{}, State{Routes: []Route{good, far, blocked, same}})
	b.check(pass(k))
	b.expect(State{Routes: []Route{good}})
	refused := k.Refusals()
	if err := refused[far.Dst]; err == nil || !errors.Is(err, ErrNotOnLink) {
		t.Errorf("route to a gateway that is not on the link: %v", err)
	}
	if err := refused[blocked.Dst]; err == nil || !errors.Is(err, ErrForeign) {
		t.Errorf("route in place of another program's: %v", err)
	}
	if len(refused) != 2 {
		t.Errorf("refused: %v", refused)
	}

	b.run(k)
	b.ip("route del 10.5.4.0/24 via 192.168.77.253")
	b.host.AddAddr(netnstest.Uplink, netip.MustParsePrefix("203.0.113.2/24"))
	took := eventually(t, func() error {
		return b.difference(State{Routes: []Route{good, far, blocked}})
	})
	t.Logf("had after %v", took)
	if refused := k.Refusals(); len(refused) != 0 {
		t.Errorf("refused: %v", refused)
	}
}

// Change must not touch what was refused: it is another program's.
func TestRefusedRouteIsNotTaken(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	b.check(pass(k))
	const foreign = "10.5.4.0/24 via 192.168.77.253 dev eth0"
	b.ip("route add " + foreign)
	r := Route{Dst: netip.MustParsePrefix("10.5.4.0/24"), Via: netip.MustParseAddr("192.168.77.254"), Dev: netnstest.Uplink}
	other := r
	other.Via = netip.MustParseAddr("192.168.77.252")
	b.exchange(k, State{}, State{Routes: []Route{r}})
	b.check(pass(k))
	b.exchange(k, State{Routes: []Route{r}}, State{Routes: []Route{other}})
	b.check(pass(k))
	b.exchange(k, State{Routes: []Route{other}}, State{})
	b.check(pass(k))
	if got := strings.TrimSpace(b.ip("route show 10.5.4.0/24")); got != foreign {
		t.Errorf("the route is %q, was %q", got, foreign)
	}
}

func TestProhibit(t *testing.T) {
	b := newBench(t)
	k := b.reconciler(config())
	want := State{Routes: []Route{
		{Dst: network, Kind: Prohibit, Metric: 1 << 31},
		{Dst: network, Dev: device, Kind: Link},
	}}
	b.exchange(k, State{}, want)
	b.check(pass(k))
	b.expect(want)
	b.check(pass(k))
	b.exchange(k, State{Routes: want.Routes[1:]}, State{})
	b.expect(State{Routes: want.Routes[:1]})
}
