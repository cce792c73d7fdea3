package hostgw

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// dualConfig is the configuration of a host with addresses of both families.
func dualConfig(h *netnstest.Host) backend.Config {
	c := config(h.Addr().Addr(), 1500)
	c.IPv6Network, c.IPv6SubnetLen = netip.MustParsePrefix("fd00:5::/48"), 64
	c.PublicIPv6 = h.IPv6Addr().Addr()
	c.IPv6Uplink = uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: c.PublicIPv6}
	return c
}

// parts are the events of a lease.
func parts(l subnet.Lease) []subnet.Event {
	return []subnet.Event{{Lease: &l}, {Lease: &l, Family: inet.IPv6}}
}

func dualLease(n int, h *netnstest.Host) subnet.Lease {
	l := lease(fmt.Sprintf("10.5.%d.0/24", n), h.Addr().Addr().String())
	l.IPv6Subnet = netip.MustParsePrefix(fmt.Sprintf("fd00:5:0:%d::/64", n))
	l.Attrs.PublicIPv6 = h.IPv6Addr().Addr()
	return l
}

// A host with plain routes, as any generation of flannel sets them, exchanges packets
// of both families with ours. Ours puts back what is lost, and a problem of one family
// leaves the other alone.
func TestBothFamilies(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	a, b := lab.DualHost("a"), lab.DualHost("b")
	gateway, err := New(dualConfig(a))
	if err != nil {
		t.Fatal(err)
	}
	own := dualLease(1, a)
	if got, want := gateway.Attrs(), own.Attrs; !got.Equal(want) {
		t.Errorf("attributes %+v, want %+v", got, want)
	}
	var n backend.Network
	if err := a.Do(func() (err error) { n, err = gateway.Up(t.Context(), own); return err }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, n.Close()); err != nil {
			t.Error(err)
		}
	})
	n.Apply(parts(dualLease(2, b)))

	// Addresses of containers, and the plain peer's routes.
	for host, addrs := range map[*netnstest.Host][]string{a: {"10.5.1.1/32", "fd00:5:0:1::1/128"}, b: {"10.5.2.1/32", "fd00:5:0:2::1/128"}} {
		for _, addr := range addrs {
			host.AddAddr("lo", netip.MustParsePrefix(addr))
		}
	}
	b.AddRoute(own.Subnet, a.Addr().Addr(), netnstest.Uplink)
	b.AddRoute(own.IPv6Subnet, a.IPv6Addr().Addr(), netnstest.Uplink)
	reach := func() error {
		for from, to := range map[string]string{"10.5.1.1": "10.5.2.1", "fd00:5:0:1::1": "fd00:5:0:2::1"} {
			if out, err := a.Command(t.Context(), "ping", "-n", "-c", "1", "-W", "1", "-I", from, to).CombinedOutput(); err != nil {
				return fmt.Errorf("ping: %w\n%s", err, out)
			}
		}
		return n.Check()
	}
	netnstest.Eventually(t, "both families reach the peer", reach)
	for _, harm := range []string{"ip -6 route del fd00:5:0:2::/64", "ip route del 10.5.2.0/24", "ip link set eth0 down"} {
		a.Exec(harm)
		if strings.HasSuffix(harm, "down") {
			a.Up(netnstest.Uplink)
			a.Exec("ip addr replace " + a.IPv6Addr().String() + " dev eth0 nodad") // which the kernel removed
		}
		netnstest.Eventually(t, "both families reach the peer after "+harm, reach)
	}

	half := dualLease(3, b)
	half.Attrs.PublicIPv6 = netip.Addr{}
	n.Apply(parts(half))
	for _, p := range n.Stats().Peers {
		if problem := strings.Contains(p.Problem, "names no IPv6 address"); problem != (p.Subnet == half.IPv6Subnet) {
			t.Errorf("peer %+v", p)
		}
	}
	if all := a.Exec("ip -6 route show"); strings.Contains(all, half.IPv6Subnet.String()) {
		t.Errorf("a route to a host without an address:\n%s", all)
	}
	n.Apply([]subnet.Event{{Type: subnet.Removed, Lease: &half, Family: inet.IPv6}})
	if len(n.Stats().Peers) != 3 {
		t.Errorf("peers %+v, want three", n.Stats().Peers)
	}
}

// With IPv6 alone the lease names no IPv4 address.
func TestIPv6Alone(t *testing.T) {
	netnstest.Require(t)
	h := netnstest.New(t).DualHost("a")
	c := dualConfig(h)
	c.Network, c.SubnetLen, c.PublicIP, c.Uplink = netip.Prefix{}, 0, netip.Addr{}, uplink.Uplink{}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if a := b.Attrs(); a.PublicIP.IsValid() || a.PublicIPv6 != c.PublicIPv6 {
		t.Errorf("attributes %+v", a)
	}
	c.PublicIPv6 = netip.MustParseAddr("2001:db8::1")
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "2001:db8::1 is not the address") {
		t.Errorf("behind NAT: %v", err)
	}
}
