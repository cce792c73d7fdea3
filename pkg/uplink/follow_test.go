package uplink

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// followed is what Follow answers, which must be soon.
func followed(t *testing.T, c Choice, u Uplink) Uplink {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), logEvery/2)
	defer cancel()
	next, err := Follow(ctx, c, u, func(error) {})
	check(t, err)
	return next
}

func TestFollowSeesChanges(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	check(t, addRoute(h, l, "0.0.0.0/0", 0))
	u, err := Find(Choice{})
	check(t, err)

	check(t, h.LinkSetMTU(l, 1400))
	next := followed(t, Choice{}, u)
	if u.MTU = 1400; next != u {
		t.Errorf("after a change of MTU: %+v, want %+v", next, u)
	}

	// The default route goes with the address, which is not what matters.
	old, err := netlink.ParseAddr("192.0.2.1/24")
	check(t, err)
	check(t, h.AddrDel(l, old))
	check(t, addAddr(h, l, "192.0.2.9/24"))
	_ = h.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}})
	next = followed(t, Choice{}, next)
	if next.Addr != ip("192.0.2.9") || next.Name != "eth0" {
		t.Errorf("after a change of address: %+v, want 192.0.2.9 on eth0", next)
	}
	if _, err := Successor(Choice{Ifaces: []string{"192.0.2.1"}}, u); err == nil {
		t.Error("an address that was asked for by -iface is replaced by another")
	}

	other := addLink(t, h, "eth1", 1500, "198.51.100.1/24")
	check(t, addRoute(h, other, "0.0.0.0/0", 0))
	if again, err := Successor(Choice{}, next); err != nil || again != next {
		t.Errorf("another interface has the default route now: %+v, %v; want to stay with %+v", again, err, next)
	}
	check(t, h.LinkDel(l))
	if next = followed(t, Choice{}, next); next.Name != "eth1" {
		t.Errorf("after eth0 was deleted: %+v, want eth1", next)
	}
}

// A link that goes down and comes back is no change; meanwhile it is a problem.
func TestFollowTellsProblems(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	c := Choice{Ifaces: []string{"eth0"}}
	u, err := Find(c)
	check(t, err)
	check(t, h.LinkSetDown(l))
	ctx, cancel := context.WithTimeout(t.Context(), logEvery/2)
	defer cancel()
	var problems []string
	_, err = Follow(ctx, c, u, func(problem error) {
		if problem == nil {
			cancel()
			return
		}
		problems = append(problems, problem.Error())
		if err := h.LinkSetUp(l); err != nil {
			t.Error(err)
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Follow: %v, want it to stay until its context ends", err)
	}
	if len(problems) != 1 || !strings.Contains(problems[0], "interface eth0 is down") {
		t.Errorf("problems: %q", problems)
	}
}

// forbidden fails the test when routes are asked for.
type forbidden struct{ *testing.T }

func (f forbidden) defaults() ([]hop, error) {
	f.Error("the routes were listed")
	return nil, nil
}

func (f forbidden) to(ip netip.Addr) (hop, error) {
	f.Errorf("the way to %v was asked for", ip)
	return hop{}, nil
}

// Each of the 10,000 routes that a backend makes is news. It must not have all
// of them listed while the uplink is what it was.
func TestUnchangedUplinkListsNoRoutes(t *testing.T) {
	h := sample()
	u, err := Choice{}.pick(h, sampleRoutes{{index: 2}})
	check(t, err)
	if next, err := h.successor(Choice{}, u, forbidden{t}); err != nil || next != u {
		t.Errorf("successor = %+v, %v; want %+v", next, err, u)
	}
}
