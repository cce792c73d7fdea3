package uplink

import (
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// run runs a command of iproute2 in the test's namespace.
func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

// An address on lo is used by the interface that packets leave by, with that
// interface's MTU.
func TestFindAddressOfLoopback(t *testing.T) {
	h := enterNetns(t)
	run(t, "ip link set lo up")
	run(t, "ip addr add 192.0.2.7/32 dev lo")
	if _, err := Find(Choice{Ifaces: []string{"192.0.2.7"}}); err == nil || !strings.Contains(err.Error(), "-iface=192.0.2.7: this is an address of lo") {
		t.Errorf("without a default route: %v", err)
	}
	eth := addLink(t, h, "eth0", 1400)
	for _, route := range []string{"default dev eth0", "default dev eth0 src 192.0.2.7"} {
		run(t, "ip route replace "+route)
		for _, c := range []Choice{{}, {Ifaces: []string{"192.0.2.7"}}, {Ifaces: []string{"eth0"}}, {CanReach: "198.51.100.1"}} {
			u, err := Find(c)
			check(t, err)
			if u.Name != "eth0" || u.Index != eth.Attrs().Index || u.MTU != 1400 || u.Addr != ip("192.0.2.7") {
				t.Errorf("%s, %+v: %+v; want 192.0.2.7 by eth0", route, c, u)
			}
			if byAddr := len(c.Ifaces) > 0; !byAddr && !strings.Contains(u.Reason, "-iface") {
				t.Errorf("%s, %+v: reason %q names no other choice", route, c, u.Reason)
			}
			if again, err := Successor(c, u); err != nil || again != u {
				t.Errorf("%s, %+v: then %+v, %v", route, c, again, err)
			}
		}
	}
	// An address of the interface's own goes first.
	check(t, addAddr(h, eth, "198.51.100.9/24"))
	u, err := Find(Choice{Ifaces: []string{"eth0"}})
	check(t, err)
	if u.Addr != ip("198.51.100.9") {
		t.Errorf("with an address of its own: %+v", u)
	}
}

// A default route by a next-hop object, or by a group of these, has no interface in
// the kernel's list of routes.
func TestFindByNexthopObject(t *testing.T) {
	h := enterNetns(t)
	addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	addLink(t, h, "eth1", 1500, "198.51.100.1/24")
	run(t, "sysctl -qw net.ipv4.nexthop_compat_mode=0")
	run(t, "ip nexthop add id 1 via 192.0.2.2 dev eth0")
	run(t, "ip nexthop add id 2 via 198.51.100.2 dev eth1")
	run(t, "ip nexthop add id 3 group 2")
	for id, want := range map[string]string{"1": "eth0", "3": "eth1"} {
		run(t, "ip route add default nhid "+id)
		if u, err := Find(Choice{}); err != nil || u.Name != want {
			t.Errorf("next hop %s: %+v, %v; want %s", id, u, err, want)
		}
		run(t, "ip route del default")
	}
}

// A default route whose interface has no carrier is there still, and leads nowhere.
func TestFindPassesOverDeadRoute(t *testing.T) {
	h := enterNetns(t)
	a := addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	addLink(t, h, "eth1", 1500, "198.51.100.1/24")
	check(t, addRoute(h, a, "0.0.0.0/0", 100))
	l, err := h.LinkByName("eth1")
	check(t, err)
	check(t, addRoute(h, l, "0.0.0.0/0", 200))
	// The kernel marks the route up to a second later (net/core/link_watch.c).
	find := func(want string) {
		t.Helper()
		deadline, tick := time.After(20*time.Second), time.NewTicker(20*time.Millisecond)
		defer tick.Stop()
		for {
			u, err := Find(Choice{})
			if err == nil && u.Name == want {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%+v, %v; want %s", u, err, want)
			}
		}
	}
	find("eth0")
	peer, err := h.LinkByName("peereth0")
	check(t, err)
	check(t, h.LinkSetDown(peer))
	find("eth1")
	// With no other it is better than none.
	check(t, h.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Priority: 200, Scope: unix.RT_SCOPE_LINK}))
	find("eth0")
}
