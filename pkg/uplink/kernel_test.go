package uplink

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/reconcile"
)

// enterNetns moves the test's goroutine into a new network namespace, and gives
// a handle that works inside it from any goroutine. The thread is never handed
// back: it ends, and the namespace with it, when the test returns.
func enterNetns(t *testing.T) *netlink.Handle {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("unshare network namespace: %v", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// addLink makes a veth interface with an MTU and addresses, and sets it and its
// peer up.
func addLink(t *testing.T, h *netlink.Handle, name string, mtu int, cidrs ...string) netlink.Link {
	t.Helper()
	peer := "peer" + name
	check(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: peer}))
	p, err := h.LinkByName(peer)
	check(t, err)
	check(t, h.LinkSetUp(p))
	l, err := h.LinkByName(name)
	check(t, err)
	check(t, h.LinkSetUp(l))
	for _, cidr := range cidrs {
		check(t, addAddr(h, l, cidr))
	}
	return l
}

func addAddr(h *netlink.Handle, l netlink.Link, cidr string) error {
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		return err
	}
	return h.AddrAdd(l, a)
}

func addRoute(h *netlink.Handle, l netlink.Link, dst string, metric int) error {
	_, n, err := net.ParseCIDR(dst)
	if err != nil {
		return err
	}
	return h.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: n, Priority: metric, Scope: netlink.SCOPE_LINK})
}

func TestFindByDefaultRoute(t *testing.T) {
	h := enterNetns(t)
	a := addLink(t, h, "eth0", 1400, "192.0.2.1/24", "192.0.2.2/24")
	b := addLink(t, h, "eth1", 1300, "198.51.100.1/24")
	check(t, addRoute(h, a, "0.0.0.0/0", 200))
	check(t, addRoute(h, b, "0.0.0.0/0", 100))
	check(t, h.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Type: unix.RTN_UNREACHABLE, Priority: 1}))

	u, err := Find(Choice{})
	check(t, err)
	want := Uplink{Index: b.Attrs().Index, Name: "eth1", MTU: 1300, Addr: ip("198.51.100.1"), Reason: "interface of the default route"}
	if u != want {
		t.Errorf("Find = %+v, want %+v", u, want)
	}
	check(t, h.LinkSetDown(b))
	u, err = Find(Choice{})
	check(t, err)
	if u.Name != "eth0" || u.Addr != ip("192.0.2.1") {
		t.Errorf("after eth1 went down: Find = %+v, want eth0 with its first address", u)
	}
}

func TestFindByMultipathDefaultRoute(t *testing.T) {
	h := enterNetns(t)
	a := addLink(t, h, "eth0", 1500)
	b := addLink(t, h, "eth1", 1500, "198.51.100.1/24")
	check(t, h.RouteAdd(&netlink.Route{
		Dst:       &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)},
		MultiPath: []*netlink.NexthopInfo{{LinkIndex: a.Attrs().Index}, {LinkIndex: b.Attrs().Index}},
	}))
	u, err := Find(Choice{})
	check(t, err)
	if u.Name != "eth1" {
		t.Errorf("Find = %+v, want eth1, the next hop with an address", u)
	}
}

func TestFindNamed(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500, "169.254.3.4/16", "192.0.2.1/24", "192.0.2.2/24")
	check(t, h.LinkAddAltName(l, "a-longer-name-than-ifnamsiz"))
	addLink(t, h, "flannel.1", 1450, "10.5.3.0/32")
	addLink(t, h, "eth9", 1500)
	for wish, want := range map[string]string{
		"eth0": "192.0.2.1", "192.0.2.2": "192.0.2.2", "169.254.3.4": "169.254.3.4", "a-longer-name-than-ifnamsiz": "192.0.2.1",
	} {
		u, err := Find(Choice{Ifaces: []string{wish}})
		check(t, err)
		if u.Name != "eth0" || u.Addr.String() != want {
			t.Errorf("-iface=%s: %+v, want eth0 and %s", wish, u, want)
		}
	}
	_, err := Find(Choice{Ifaces: []string{"eth7"}})
	if err == nil || errors.Is(err, errNotReady) || !strings.Contains(err.Error(), "eth0 (169.254.3.4, 192.0.2.1, 192.0.2.2)") {
		t.Errorf("-iface=eth7: error %v, want one that lists eth0 and its addresses", err)
	}
	if _, err := Find(Choice{Ifaces: []string{"eth9"}}); !errors.Is(err, errNotReady) {
		t.Errorf("-iface=eth9 without address: error %v, want errNotReady", err)
	}
}

func TestFindSkipsLinkScope(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500)
	a, err := netlink.ParseAddr("198.51.100.1/24")
	check(t, err)
	a.Scope = unix.RT_SCOPE_LINK
	check(t, h.AddrAdd(l, a))
	if u, err := Find(Choice{Ifaces: []string{"eth0"}}); !errors.Is(err, errNotReady) {
		t.Errorf("an address of link scope only: Find = %+v, %v; want errNotReady", u, err)
	}
	check(t, addAddr(h, l, "192.0.2.1/24"))
	u, err := Find(Choice{Ifaces: []string{"eth0"}})
	check(t, err)
	if u.Addr != ip("192.0.2.1") {
		t.Errorf("Find = %+v, want the address of global scope", u)
	}
}

func TestFindCanReach(t *testing.T) {
	h := enterNetns(t)
	lo, err := h.LinkByName("lo")
	check(t, err)
	check(t, h.LinkSetUp(lo))
	addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	l := addLink(t, h, "eth1", 1500, "198.51.100.1/24")
	check(t, addRoute(h, l, "203.0.113.0/24", 0))

	u, err := Find(Choice{CanReach: "203.0.113.7"})
	check(t, err)
	if u.Name != "eth1" || u.Addr != ip("198.51.100.1") {
		t.Errorf("Find = %+v, want eth1", u)
	}
	if _, err := Find(Choice{CanReach: "203.0.114.1"}); !errors.Is(err, errNotReady) {
		t.Errorf("unreachable: error %v, want errNotReady", err)
	}
	if _, err := Find(Choice{CanReach: "192.0.2.1"}); err == nil || !strings.Contains(err.Error(), "this host itself") {
		t.Errorf("our own address: error %v", err)
	}
}

// TestWait brings an interface up once Wait has said that it waits.
func TestWait(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500)
	check(t, h.LinkSetDown(l))
	ctx, cancel := context.WithTimeout(t.Context(), logEvery/2)
	defer cancel()

	said := log.Stats.Warning.Lines()
	stepped := make(chan error, 1)
	go func() {
		if !until(ctx, func() bool { return log.Stats.Warning.Lines() > said }) {
			stepped <- errors.New("Wait did not say what it waits for")
			return
		}
		stepped <- errors.Join(h.LinkSetUp(l), addAddr(h, l, "192.0.2.1/24"), addRoute(h, l, "203.0.113.0/24", 0))
	}()
	u, err := Wait(ctx, Choice{CanReach: "203.0.113.7"})
	check(t, <-stepped)
	check(t, err)
	if u.Name != "eth0" || u.Addr != ip("192.0.2.1") {
		t.Errorf("Wait = %+v, want eth0", u)
	}
}

// TestChangesAreAnnounced proves that each kind of change alone causes a look.
func TestChangesAreAnnounced(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500)
	for _, change := range []struct {
		name string
		make func() error
	}{
		{"link", func() error { return h.LinkSetMTU(l, 1400) }},
		{"address", func() error { return addAddr(h, l, "192.0.2.1/24") }},
		{"route", func() error { return addRoute(h, l, "203.0.113.0/24", 0) }},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), logEvery/3)
		first := reconcile.NewSignal()
		first.Set()
		looks := 0
		check(t, watch(ctx, inet.IPv4, first, func(context.Context) error {
			if looks++; looks == 2 {
				return reconcile.Stop(nil)
			}
			return change.make()
		}))
		if looks != 2 {
			t.Errorf("change of %s was not announced", change.name)
		}
		cancel()
	}
}

func TestWaitEnds(t *testing.T) {
	enterNetns(t)
	if _, err := Wait(t.Context(), Choice{Ifaces: []string{"eth7"}}); err == nil || errors.Is(err, errNotReady) {
		t.Errorf("interface that does not exist: error %v, want a final one", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Wait(ctx, Choice{})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no default route") {
		t.Errorf("cancelled: error %v, want context.Canceled and what was missing", err)
	}
}

// until polls cond until it holds or ctx ends.
func until(ctx context.Context, cond func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}
