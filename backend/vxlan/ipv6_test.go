package vxlan

import (
	"context"
	"encoding/json"
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

// dualRig is a host of ours, and one that plain commands set up as any generation of
// flannel does.
type dualRig struct {
	*testing.T
	ours, plain *netnstest.Host
	config      backend.Config
	network     backend.Network
	own, peer   subnet.Lease
}

func newDualRig(t *testing.T, options string) *dualRig {
	t.Helper()
	netnstest.Require(t)
	lab := netnstest.New(t)
	r := &dualRig{T: t, ours: lab.DualHost("ours"), plain: lab.DualHost("plain")}
	r.config = config(t, options)
	r.config.IPv6Network, r.config.IPv6SubnetLen = netip.MustParsePrefix("fd00:5::/48"), 64
	r.config.PublicIPv6 = r.ours.IPv6Addr().Addr()
	r.config.IPv6Uplink = uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: r.config.PublicIPv6}
	b, err := New(r.config)
	r.check(err)
	r.own = subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64"), Attrs: b.Attrs()}
	r.check(r.ours.Do(func() (err error) {
		r.network, err = b.Up(t.Context(), r.own)
		return err
	}))
	t.Cleanup(func() { r.check(r.network.Close()) })
	r.peer = subnet.Lease{Subnet: netip.MustParsePrefix("10.5.2.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:2::/64"), Attrs: subnet.Attrs{
		PublicIP: r.plain.Addr().Addr(), PublicIPv6: r.plain.IPv6Addr().Addr(), BackendType: Type,
		BackendData: json.RawMessage(`{"VNI":1,"VtepMAC":"0e:04:00:00:00:02"}`), BackendV6Data: json.RawMessage(`{"VNI":1,"VtepMAC":"0e:06:00:00:00:02"}`),
	}}
	return r
}

func (r *dualRig) check(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

// run runs the network to the end of the test.
func (r *dualRig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.network.Run(ctx) }()
	r.Cleanup(func() {
		cancel()
		r.check(<-ended)
	})
}

func (r *dualRig) apply(l subnet.Lease) {
	r.network.Apply([]subnet.Event{{Lease: &l}, {Lease: &l, Family: inet.IPv6}})
}

// setUpPlain makes the plain host's devices and entries, by the data that our lease has.
func (r *dualRig) setUpPlain() {
	r.Helper()
	for _, f := range inet.Families {
		own, peer, a := r.own.SubnetOf(f).Addr(), r.peer.SubnetOf(f), r.own.Attrs
		var data, its leaseData
		r.check(errors.Join(json.Unmarshal(a.Data(f), &data), json.Unmarshal(r.peer.Attrs.Data(f), &its)))
		dev := map[inet.Family]string{inet.IPv4: "flannel.1", inet.IPv6: "flannel-v6.1"}[f]
		host := netip.PrefixFrom(peer.Addr(), f.Bits())
		for _, command := range []string{
			fmt.Sprintf("ip link add %s address %s type vxlan id 1 dstport 8472 nolearning local %v dev eth0", dev, its.VtepMAC, r.peer.Attrs.Addr(f)),
			"ip link set " + dev + " up",
			fmt.Sprintf("ip neigh add %v lladdr %s nud permanent dev %s", own, data.VtepMAC, dev),
			fmt.Sprintf("bridge fdb add %s dev %s dst %v", data.VtepMAC, dev, a.Addr(f)),
		} {
			r.plain.Exec(command)
		}
		r.plain.AddAddr(dev, host)
		r.plain.Exec(fmt.Sprintf("ip route add %v via %v dev %s onlink", r.own.SubnetOf(f), own, dev))
		// Addresses of containers.
		r.ours.AddAddr("lo", netip.PrefixFrom(own.Next(), f.Bits()))
		r.plain.AddAddr("lo", netip.PrefixFrom(peer.Addr().Next(), f.Bits()))
	}
}

// reach pings in both families, with the largest packets that containers send.
func (r *dualRig) reach() error {
	for _, f := range inet.Families {
		size := fmt.Sprint(r.network.MTU() - f.HeaderLen() - 8)
		from, to := r.own.SubnetOf(f).Addr().Next(), r.peer.SubnetOf(f).Addr().Next()
		if out, err := r.ours.Command(r.Context(), "ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-s", size, "-I", from.String(), to.String()).CombinedOutput(); err != nil {
			return fmt.Errorf("ping %v: %w\n%s", f, err, out)
		}
	}
	return r.network.Check()
}

// Both families reach a plain host, and do so again after everything that takes a
// device, an address, a route or an entry away.
func TestBothFamilies(t *testing.T) {
	r := newDualRig(t, `{}`)
	if r.network.MTU() != 1430 {
		t.Errorf("MTU %d, want 1430 with datagrams of IPv6", r.network.MTU())
	}
	r.apply(r.peer)
	r.setUpPlain()
	r.run()
	netnstest.Eventually(t, "at first", r.reach)
	for _, harm := range []string{
		"ip link del flannel-v6.1", "ip link del flannel.1", "ip link set flannel-v6.1 down", "ip link set flannel.1 down",
		"ip -6 addr flush dev flannel-v6.1", "ip -6 route del fd00:5:0:2::/64", "ip -6 neigh del fd00:5:0:2:: dev flannel-v6.1",
		"bridge fdb del 0e:06:00:00:00:02 dev flannel-v6.1 dst " + r.plain.IPv6Addr().Addr().String(),
		"ip link set flannel-v6.1 address 0e:00:00:00:00:77", "ip link set flannel-v6.1 mtu 1300",
	} {
		r.ours.Exec(harm)
		netnstest.Eventually(t, harm, r.reach)
	}
	// What a host of any generation looks for.
	for command, want := range map[string]string{
		"ip -d link show flannel-v6.1":  "vxlan id 1 local " + r.ours.IPv6Addr().Addr().String() + " dev eth0",
		"ip -6 addr show flannel-v6.1":  "inet6 fd00:5:0:1::/128",
		"ip -6 route show":              "fd00:5:0:2::/64 via fd00:5:0:2:: dev flannel-v6.1 proto",
		"ip -6 neigh show":              "fd00:5:0:2:: dev flannel-v6.1 lladdr 0e:06:00:00:00:02 PERMANENT",
		"bridge fdb show dev flannel.1": "0e:04:00:00:00:02 dst " + r.plain.Addr().Addr().String() + " self permanent",
	} {
		if out := r.ours.Exec(command); !strings.Contains(out, want) {
			t.Errorf("%s has no %q:\n%s", command, want, out)
		}
	}
	// A peer without an IPv6 part of its record keeps IPv4.
	half := r.peer
	half.Attrs.BackendV6Data = nil
	r.apply(half)
	for _, p := range r.network.Stats().Peers {
		if problem := strings.Contains(p.Problem, "BackendV6Data"); problem != p.Subnet.Addr().Is6() {
			t.Errorf("peer %+v", p)
		}
	}
}

// A device of IPv6 that cannot be made costs IPv4 nothing, and comes when it can.
func TestIPv6ComesLater(t *testing.T) {
	netnstest.Require(t)
	lab := netnstest.New(t)
	h := lab.DualHost("a")
	taken, err := h.ListenPacket(t.Context(), "udp6", "[::]:8472")
	if err != nil {
		t.Fatal(err)
	}
	c := config(t, `{}`)
	c.IPv6Network, c.IPv6SubnetLen, c.PublicIPv6 = netip.MustParsePrefix("fd00:5::/48"), 64, h.IPv6Addr().Addr()
	c.IPv6Uplink = uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: c.PublicIPv6}
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r := &dualRig{T: t, ours: h}
	r.check(h.Do(func() (err error) {
		r.network, err = b.Up(t.Context(), subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64"), Attrs: b.Attrs()})
		return err
	}))
	t.Cleanup(func() { r.check(r.network.Close()) })
	r.network.Apply(nil)
	r.run()
	if err := r.network.Check(); err == nil || !strings.Contains(err.Error(), "flannel-v6.1") || strings.Contains(err.Error(), "flannel.1 ") {
		t.Errorf("Check: %v", err)
	}
	if out := h.Exec("ip -4 addr show flannel.1"); !strings.Contains(out, "10.5.1.0/32") {
		t.Errorf("IPv4 has no device:\n%s", out)
	}
	r.check(taken.Close())
	netnstest.Eventually(t, "IPv6 comes", r.network.Check)
}

// DirectRouting of IPv6 goes by the uplink, and by the tunnel where the host is not on
// the link.
func TestIPv6DirectRouting(t *testing.T) {
	r := newDualRig(t, `{"DirectRouting": true}`)
	r.apply(r.peer)
	r.run()
	route := func(want string) func() error {
		return func() error {
			if out := r.ours.Exec("ip -6 route show fd00:5:0:2::/64"); !strings.HasPrefix(out, "fd00:5:0:2::/64 "+want) {
				return fmt.Errorf("route %q, want %q", out, want)
			}
			return nil
		}
	}
	netnstest.Eventually(t, "on the link", route("via "+r.plain.IPv6Addr().Addr().String()+" dev eth0"))
	far := r.peer
	far.Attrs.PublicIPv6 = netip.MustParseAddr("2001:db8::2")
	r.apply(far)
	netnstest.Eventually(t, "elsewhere", route("via fd00:5:0:2:: dev flannel-v6.1"))
	r.apply(r.peer)
	netnstest.Eventually(t, "on the link again", route("via "+r.plain.IPv6Addr().Addr().String()+" dev eth0"))
}

func TestIPv6Options(t *testing.T) {
	c := config(t, `{}`)
	c.IPv6Network = netip.MustParsePrefix("fd00:5::/48")
	c.IPv6Uplink = uplink.Uplink{Name: "eth1", MTU: 1349, Addr: netip.MustParseAddr("2001:db8::1")}
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "MTU 1349 of the network between the hosts is not in 1350 to 65535: VXLAN takes 70 bytes, IPv6 needs 1280") {
		t.Errorf("small MTU: %v", err)
	}
}
