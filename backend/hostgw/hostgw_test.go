package hostgw

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// config is that of a host whose uplink has addr.
func config(addr netip.Addr, mtu int) backend.Config {
	return backend.Config{
		Network: netip.MustParsePrefix("10.5.0.0/16"), SubnetLen: 24, PublicIP: addr,
		Uplink: uplink.Uplink{Name: netnstest.Uplink, MTU: mtu, Addr: addr},
	}
}

func lease(dst, host string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(dst), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(host), BackendType: Type}}
}

func added(leases ...subnet.Lease) []subnet.Event {
	var events []subnet.Event
	for _, l := range leases {
		events = append(events, subnet.Event{Type: subnet.Added, Lease: &l})
	}
	return events
}

func TestAttrs(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.1")
	b, err := New(config(addr, 1500))
	if err != nil {
		t.Fatal(err)
	}
	if got := b.Attrs(); !got.Equal(subnet.Attrs{PublicIP: addr, BackendType: "host-gw"}) {
		t.Errorf("%+v", got)
	}
	c := config(addr, 1500)
	c.PublicIP = netip.MustParseAddr("203.0.113.1")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "203.0.113.1") || !strings.Contains(err.Error(), "vxlan") {
		t.Errorf("behind NAT: error %v, want one that names the address and what to use", err)
	}
}

// open makes a network on a host; its MTU is 9000.
func open(t *testing.T) (*netnstest.Host, backend.Network) {
	t.Helper()
	netnstest.Require(t)
	h := netnstest.New(t).Host("a")
	b, err := New(config(h.Addr().Addr(), 9000))
	if err != nil {
		t.Fatal(err)
	}
	var n backend.Network
	err = h.Do(func() (err error) {
		n, err = b.Up(t.Context(), lease("10.5.1.0/24", h.Addr().Addr().String()))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return h, n
}

// routes are ours on the host: destination → gateway.
func routes(t *testing.T, h *netnstest.Host) map[string]string {
	t.Helper()
	all, err := h.Netlink().RouteListFiltered(unix.AF_INET, &netlink.Route{Protocol: rtnl.Protocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, r := range all {
		found[r.Dst.String()] = r.Gw.String()
	}
	return found
}

// A peer that is not on the link is refused with the reason, and alone: before,
// with and after others that are.
func TestFarPeerIsRefusedAlone(t *testing.T) {
	h, n := open(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	// settle waits until n has a route for each of near, and a problem with each
	// of far.
	settle := func(near, far map[string]string) {
		t.Helper()
		netnstest.Eventually(t, "routes and problems are right", func() error {
			if got := routes(t, h); !maps.Equal(got, near) {
				return fmt.Errorf("routes %v, want %v", got, near)
			}
			for _, p := range n.Stats().Peers {
				want := ""
				if host := far[p.Subnet.String()]; host != "" {
					want = host + " is not on the link of " + netnstest.Uplink
				}
				if !strings.HasPrefix(p.Problem, want) || p.Problem != "" && want == "" {
					return fmt.Errorf("problem %q of peer %v, want %q", p.Problem, p.Subnet, want)
				}
			}
			if got := len(n.Stats().Peers); got != len(near)+len(far) {
				return fmt.Errorf("%d peers", got)
			}
			return nil
		})
	}
	const one, two, three, four, five = "10.5.11.0/24", "10.5.12.0/24", "10.5.13.0/24", "10.5.14.0/24", "10.5.15.0/24"
	const nearby, other, away, beyond = "192.168.77.101", "192.168.77.102", "203.0.113.7", "203.0.113.8"
	n.Apply(added(lease(one, nearby), lease(two, away), lease(three, other)))
	settle(map[string]string{one: nearby, three: other}, map[string]string{two: away})
	n.Apply(added(lease(four, beyond)))
	n.Apply(added(lease(five, nearby)))
	settle(map[string]string{one: nearby, three: other, five: nearby}, map[string]string{two: away, four: beyond})
	// One moves onto the link, and one away from it, whose packets must not go
	// on to where it was.
	n.Apply(added(lease(two, nearby), lease(one, away)))
	settle(map[string]string{two: nearby, three: other, five: nearby}, map[string]string{one: away, four: beyond})
	gone := added(lease(two, nearby), lease(four, beyond))
	gone[0].Type, gone[1].Type = subnet.Removed, subnet.Removed
	n.Apply(gone)
	settle(map[string]string{three: other, five: nearby}, map[string]string{one: away})
}

// Packets leave as they are, so containers have all of the uplink's MTU.
func TestMTU(t *testing.T) {
	if _, n := open(t); n.MTU() != 9000 {
		t.Errorf("MTU %d, want the uplink's 9000", n.MTU())
	}
}

// What is left when the program ends is taken away for the next backend, and
// nothing else.
func TestRemove(t *testing.T) {
	h, n := open(t)
	n.Apply(added(lease("10.5.2.0/24", "192.168.77.102"), lease("10.5.3.0/24", "192.168.77.103")))
	h.AddRoute(netip.MustParsePrefix("10.5.9.0/24"), netip.MustParseAddr("192.168.77.109"), netnstest.Uplink)
	before, err := h.Netlink().RouteList(nil, unix.AF_INET)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error { return Remove(t.Context(), netip.MustParsePrefix("10.5.0.0/16")) }); err != nil {
		t.Fatal(err)
	}
	after, err := h.Netlink().RouteList(nil, unix.AF_INET)
	if err != nil || len(routes(t, h)) != 0 || len(after) != len(before)-2 {
		t.Errorf("%d routes, of them ours %v; want %d, %v", len(after), routes(t, h), len(before)-2, err)
	}
}
