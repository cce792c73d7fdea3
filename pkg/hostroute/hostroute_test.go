package hostroute

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/pkg/netnstest"
)

var (
	network = netip.MustParsePrefix("172.16.0.0/13")
	own     = netip.MustParsePrefix("172.18.5.0/24")
	peer    = netip.MustParsePrefix("172.18.6.0/24")
)

// host is a host with a tunnel to network, and containers behind d0.
type host struct {
	*testing.T
	*netnstest.Host
	network, own, peer netip.Prefix
}

func newHost(t *testing.T) host {
	t.Helper()
	netnstest.Require(t)
	h := host{t, netnstest.New(t).Host("a"), network, own, peer}
	h.Bridge("d0", netip.MustParsePrefix("172.18.5.1/24"), 1500)
	h.Exec("ip link add flannel0 type bridge")
	h.Exec("ip link set flannel0 up")
	h.Exec("ip route add 172.16.0.0/13 dev flannel0 proto 85")
	h.Sysctl("net.ipv4.ip_forward", "1")
	return h
}

// problems returns what a Resolver finds for our own subnet and for the peer's.
func (h host) problems() (ours, theirs string) {
	h.Helper()
	err := h.Do(func() error {
		r, err := Open(h.network, h.own)
		if err != nil {
			return err
		}
		defer r.Close()
		ours, theirs = fmt.Sprint(r.Own()), fmt.Sprint(r.Peer(h.peer))
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return ours, theirs
}

// interference is a change of a host, and the problems that a Resolver finds then.
type interference struct {
	do           []string
	ours, theirs string // in the problems; empty: none
	remedy       string
}

// check makes the change, and compares the problems.
func (c interference) check(h host) {
	h.Helper()
	for _, line := range c.do {
		h.Exec(line)
	}
	ours, theirs := h.problems()
	for _, p := range []struct{ got, want string }{{ours, c.ours}, {theirs, c.theirs}} {
		if p.want == "" && p.got != "<nil>" || p.want != "" && !strings.Contains(p.got, p.want) {
			h.Errorf("got %q, want %q", p.got, p.want)
		}
	}
	if c.remedy == "" {
		return
	}
	if !strings.HasSuffix(theirs, c.remedy) {
		h.Fatalf("got %q, want the remedy %q", theirs, c.remedy)
	}
	h.Exec(c.remedy)
	if ours, theirs := h.problems(); ours != "<nil>" || theirs != "<nil>" {
		h.Errorf("after the remedy: %s; %s", ours, theirs)
	}
}

// A route or a rule of another program that takes packets is named, with the
// interface, and with a remedy that works.
func TestResolverNamesWhatTakesPackets(t *testing.T) {
	for name, c := range map[string]interference{
		"nothing": {},
		"a Docker network in Network": {do: []string{"ip link add br-compose type bridge", "ip addr add 172.18.0.1/16 dev br-compose", "ip link set br-compose up"},
			theirs: "to br-compose (route 172.18.0.0/16, table main)"},
		"a table before main": {do: []string{"ip link add vpn0 type bridge", "ip link set vpn0 up", "ip route add 172.16.0.0/13 dev vpn0 table 52", "ip rule add pref 5270 lookup 52"},
			ours: "to vpn0 (route 172.16.0.0/13, table 52)", theirs: "to vpn0 (route 172.16.0.0/13, table 52)", remedy: "ip rule add priority 5269 to 172.16.0.0/13 lookup main"},
		"a default route before main": {do: []string{"ip link add vpn0 type bridge", "ip link set vpn0 up", "ip route add default dev vpn0 table 52", "ip rule add pref 5270 lookup 52"},
			ours: "to vpn0 (route 0.0.0.0/0, table 52)", theirs: "to vpn0 (route 0.0.0.0/0, table 52)"},
		"a default route of another table that main's other routes precede": {do: []string{"ip link add vpn0 type bridge", "ip link set vpn0 up", "ip route add default dev vpn0 table 52",
			"ip rule add pref 5270 lookup 52", "ip rule add pref 5269 lookup main suppress_prefixlength 0"}},
		"a rule for packets of containers": {do: []string{"ip link add vpn0 type bridge", "ip link set vpn0 up", "ip route add default dev vpn0 table 52", "ip rule add pref 5270 from 172.18.5.0/24 lookup 52"},
			theirs: "to vpn0 (route 0.0.0.0/0, table 52)"},
		"a rule for packets of a bridge": {do: []string{"ip link add vpn0 type bridge", "ip link set vpn0 up", "ip route add default dev vpn0 table 52", "ip rule add pref 5270 iif d0 lookup 52"},
			theirs: "to vpn0 (route 0.0.0.0/0, table 52)"},
		"a rule that prohibits":       {do: []string{"ip rule add pref 100 to 172.18.6.0/24 prohibit"}, theirs: "type prohibit takes packets for 172.18.6.0/24"},
		"a route that swallows":       {do: []string{"ip route add blackhole 172.18.6.0/24"}, theirs: "type blackhole takes packets for 172.18.6.0/24"},
		"a route that is unreachable": {do: []string{"ip route add unreachable 172.18.6.0/24"}, theirs: "type unreachable takes packets for 172.18.6.0/24"},
		"a static route":              {do: []string{"ip route add 172.18.6.0/24 via 192.168.77.254"}, theirs: "(route 172.18.6.0/24, table main)"},
		"the peer's subnet is here":   {do: []string{"ip addr add 172.18.6.2/24 dev d0"}, theirs: "to "},
		"no route of flannel's":       {do: []string{"ip route del 172.16.0.0/13"}},
		"forwarding is off":           {do: []string{"sysctl -qw net.ipv4.ip_forward=0"}},
		"our bridge is down":          {do: []string{"ip link set d0 down"}},
		"no bridge":                   {do: []string{"ip link del d0"}},
		"containers' routes of /32":   {do: []string{"ip addr flush dev d0", "ip addr add 172.18.5.1/32 dev d0", "ip route add 172.18.5.2/32 dev d0"}},
		"strict reverse path filters": {do: []string{"sysctl -qw net.ipv4.conf.all.rp_filter=1"}},
	} {
		t.Run(name, func(t *testing.T) {
			c.check(newHost(t))
		})
	}
}

// A running Checker follows addresses, routes and rules.
func TestCheckerFollowsTheKernel(t *testing.T) {
	newHost(t).follows([]change{
		{"ip rule add pref 100 to 172.18.6.0/24 prohibit", "ip rule del pref 100"},
		{"ip route add 172.18.6.0/25 via 192.168.77.254", "ip route del 172.18.6.0/25"},
		{"ip addr add 172.18.0.1/16 dev d0", "ip addr del 172.18.0.1/16 dev d0"},
	})
}

// change takes packets, until it is undone.
type change struct{ do, undo string }

// follows runs a Checker, which must find each change.
func (h host) follows(changes []change) {
	h.Helper()
	var c *Checker
	err := h.Do(func() (err error) {
		c, err = NewChecker(h.network, h.own, func() []netip.Prefix { return []netip.Prefix{h.peer} })
		return err
	})
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(h.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		if err := errors.Join(<-ended, c.Close()); err != nil {
			h.Error(err)
		}
	}()
	expect := func(what string, taken bool) {
		h.Helper()
		netnstest.Eventually(h.T, what, func() error {
			if all, problem := c.Check(), c.Problem(h.peer); (all != nil) != taken || (problem != nil) != taken {
				return fmt.Errorf("found %v; of the peer %v", all, problem)
			}
			return nil
		})
	}
	for _, c := range changes {
		h.Exec(c.do)
		expect(c.do, true)
		h.Exec(c.undo)
		expect(c.undo, false)
	}
}

// fakeResolver counts lookups. Each takes a millisecond.
type fakeResolver struct {
	looked map[netip.Prefix]int
	wrong  map[netip.Prefix]error
}

func (f *fakeResolver) Own() error { return nil }

func (f *fakeResolver) Peer(p netip.Prefix) error {
	time.Sleep(time.Millisecond) // of a synctest bubble
	f.looked[p]++
	return f.wrong[p]
}

// A check of many peers takes a hundredth of the time at most; one of new peers
// does not look up the others; all are looked up again after checkEvery.
func TestCheckerLooksUpInPortions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var all []netip.Prefix
		for i := range 1000 {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
		}
		f := &fakeResolver{looked: make(map[netip.Prefix]int), wrong: map[netip.Prefix]error{all[7]: errors.New("taken"), all[9]: errors.New("taken")}}
		peers := all[:999]
		c := newChecker(f, func() []netip.Prefix { return peers })
		step := func() time.Duration {
			began := time.Now()
			if err := c.step(t.Context()); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		if took := step(); took < 90*time.Second {
			t.Errorf("999 lookups of 1 ms each took %v, want a hundred times as long", took)
		}
		if err := c.Check(); err == nil || err.Error() != "2 of 999 peers: taken; also [10.0.9.0/24]" {
			t.Errorf("Check: %v", err)
		}
		peers = all
		step()
		if f.looked[all[0]] != 1 || f.looked[all[999]] != 1 {
			t.Errorf("with a new peer: %d, %d lookups", f.looked[all[0]], f.looked[all[999]])
		}
		c.invalidate()
		step()
		time.Sleep(checkEvery)
		step()
		if n := f.looked[all[0]]; n != 3 {
			t.Errorf("%d lookups after a change of routes and a period, want 3", n)
		}
	})
}
