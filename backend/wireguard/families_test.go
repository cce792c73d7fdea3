package wireguard

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// dualConfig is a configuration with both families inside, and these outside.
func dualConfig(t *testing.T, mode string, outside ...netip.Addr) backend.Config {
	c := config(t, fmt.Sprintf(`{"Datapath": "userspace", "Mode": %q}`, mode))
	c.IPv6Network, c.IPv6SubnetLen = netip.MustParsePrefix("fd00:5::/48"), 64
	c.Uplink, c.PublicIP = uplink.Uplink{}, netip.Addr{}
	for _, a := range outside {
		u := uplink.Uplink{Name: netnstest.Uplink, MTU: 1500, Addr: a}
		if a.Is4() {
			c.Uplink, c.PublicIP = u, a
		} else {
			c.IPv6Uplink, c.PublicIPv6 = u, a
		}
	}
	return c
}

// The devices of each mode, and the ports that the lease names: those that are open.
func TestModes(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, test := range []struct {
		mode             string
		outside          []netip.Addr
		devices          string
		data, v6Data     string // ports
		publicIP, public netip.Addr
	}{
		{"", []netip.Addr{v4, v6}, "flannel-wg flannel-wg-v6", "51820", "51821", v4, v6},
		{"separate", []netip.Addr{v4, v6}, "flannel-wg flannel-wg-v6", "51820", "51821", v4, v6},
		{"auto", []netip.Addr{v4, v6}, "flannel-wg", "51820", "51820", v4, v6},
		{"ipv4", []netip.Addr{v4, v6}, "flannel-wg", "51820", "", v4, netip.Addr{}},
		{"ipv6", []netip.Addr{v4, v6}, "flannel-wg", "", "51820", netip.Addr{}, v6},
		{"", []netip.Addr{v4}, "flannel-wg", "51820", "", v4, netip.Addr{}},
		{"", []netip.Addr{v6}, "flannel-wg", "", "51820", netip.Addr{}, v6},
	} {
		b, err := New(dualConfig(t, test.mode, test.outside...))
		if err != nil {
			t.Errorf("%+v: %v", test, err)
			continue
		}
		var devices []string
		for _, e := range b.(*wgBackend).ends {
			devices = append(devices, e.device)
		}
		a := b.Attrs()
		port := func(data json.RawMessage) string {
			var d leaseData
			if len(data) == 0 || json.Unmarshal(data, &d) != nil {
				return ""
			}
			return fmt.Sprint(d.Port)
		}
		if strings.Join(devices, " ") != test.devices || port(a.BackendData) != test.data || port(a.BackendV6Data) != test.v6Data || a.PublicIP != test.publicIP || a.PublicIPv6 != test.public {
			t.Errorf("%+v: devices %v, attributes %+v", test, devices, a)
		}
	}
	for mode, want := range map[string]string{"separate": "no IPv6 address", "ipv6": "no IPv6 address", "both": `Mode "both" is not known; known are separate, auto, ipv4, ipv6`} {
		if _, err := New(dualConfig(t, mode, v4)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
	c := dualConfig(t, "", v4, v6)
	c.IPv6Uplink.MTU = 1359
	if _, err := New(c); err == nil || !strings.Contains(err.Error(), "MTU 1359 of the network between the hosts is not in 1360 to 65535: WireGuard takes 80 bytes, IPv6 needs 1280") {
		t.Errorf("small MTU: %v", err)
	}
}

// Mode auto chooses a peer's address as every generation does.
func TestChoose(t *testing.T) {
	addr := netip.MustParseAddr
	for _, test := range []struct{ own6, v4, v6, want string }{
		{"2001:db8::1", "10.0.0.2", "2001:db8::2", "IPv6"}, {"2001:db8::1", "192.0.2.2", "2001:db8::2", "IPv4"},
		{"fd00::1", "10.0.0.2", "2001:db8::2", "IPv4"}, {"2001:db8::1", "10.0.0.2", "fd00::2", "IPv4"},
	} {
		e := end{outer: inet.Families[:], addrs: [2]netip.Addr{addr("10.0.0.1"), addr(test.own6)}}
		if got, err := e.choose(subnet.Attrs{PublicIP: addr(test.v4), PublicIPv6: addr(test.v6)}); err != nil || got.String() != test.want {
			t.Errorf("%+v: %v, %v", test, got, err)
		}
	}
	both := end{outer: inet.Families[:], addrs: [2]netip.Addr{addr("192.0.2.1"), addr("2001:db8::1")}}
	if got, err := both.choose(subnet.Attrs{PublicIP: addr("10.0.0.2"), PublicIPv6: addr("fe80::2")}); err != nil || got != inet.IPv4 {
		t.Errorf("a peer with a link-local IPv6 address: %v, %v", got, err)
	}
	e := end{outer: inet.Families[:1]}
	if _, err := e.choose(subnet.Attrs{PublicIPv6: addr("2001:db8::2")}); err == nil {
		t.Error("a peer without an address of ours")
	}
}

// Two hosts reach each other in both families, in each mode, also with a new key.
func TestFamiliesInModes(t *testing.T) {
	netnstest.Require(t)
	for _, mode := range []string{"separate", "auto", "ipv4", "ipv6"} {
		t.Run(mode, func(t *testing.T) {
			lab := netnstest.New(t)
			a, b := newDualSite(t, lab, 1, mode), newDualSite(t, lab, 2, mode)
			a.applyParts(b.lease)
			b.applyParts(a.lease)
			a.runAll()
			b.runAll()
			a.reach(b)
			b.reach(a)
			attrs, err := a.tunnels.Rekey()
			a.check(err)
			a.lease.Attrs = attrs
			b.applyParts(a.lease)
			b.reach(a)
			a.check(a.tunnels.Check())
			if got := a.tunnels.MTU(); got != 1420 {
				t.Errorf("MTU %d, want 1420", got)
			}
			for _, p := range a.tunnels.Stats().Peers {
				if p.Problem != "" || mode == "ipv6" && !p.PublicIP.Is6() || mode == "ipv4" && p.PublicIP.Is6() {
					t.Errorf("peer %+v", p)
				}
			}
		})
	}
}

func newDualSite(t *testing.T, lab *netnstest.Lab, n byte, mode string) *site {
	t.Helper()
	s := &site{T: t, host: lab.DualHost(string('a' + rune(n))), addr: netip.AddrFrom4([4]byte{10, 5, n, 1})}
	b, err := New(dualConfig(t, mode, s.host.Addr().Addr(), s.host.IPv6Addr().Addr()))
	s.check(err)
	s.backend = b
	s.lease = subnet.Lease{
		Subnet: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 5, n}), 24), IPv6Subnet: netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0, 0, 5, 7: n}), 64), Attrs: b.Attrs(),
	}
	s.up(nil)
	t.Cleanup(func() { s.check(s.tunnels.Close()) })
	s.host.AddAddr("lo", netip.PrefixFrom(s.addr, 32))
	s.host.AddAddr("lo", netip.PrefixFrom(s.addr6(), 128))
	return s
}

func (s *site) addr6() netip.Addr { return s.lease.IPv6Subnet.Addr().Next() }

func (s *site) applyParts(l subnet.Lease) {
	s.tunnels.Apply([]subnet.Event{{Lease: &l}, {Lease: &l, Family: inet.IPv6}})
}

// runAll is run for all tunnels.
func (s *site) runAll() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.tunnels.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		s.check(<-done)
	})
}

// reach waits until pings arrive in both families, with the largest packets that
// containers send. Crossing initiations may leave wireguard-go with a session that only
// sends, for 15 s; see handshakeAll.
func (s *site) reach(to *site) {
	s.Helper()
	for from, dst := range map[netip.Addr]netip.Addr{s.addr: to.addr, s.addr6(): to.addr6()} {
		size := fmt.Sprint(s.tunnels.MTU() - inet.Of(from).HeaderLen() - 8)
		netnstest.Eventually(s, fmt.Sprintf("ping from %v to %v", from, dst), func() error {
			out, err := s.host.Command(s.Context(), "ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-s", size, "-I", from.String(), dst.String()).CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%w\n%s", err, out)
			}
			return err
		})
	}
}

// A peer of another flannel in mode auto names another port for IPv6.
func TestPeersPort(t *testing.T) {
	l := lease("10.5.2.0/24", "10.0.0.2", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=", 51820)
	l.Attrs.PublicIPv6 = netip.MustParseAddr("2001:db8::2")
	l.Attrs.BackendV6Data = json.RawMessage(`{"PublicKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=","Port":51821}`)
	at := end{outer: inet.Families[:], addrs: [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}}
	p := parsePeer(subnet.Event{Lease: &l}, at, wgtypes.Key{})
	if got := desiredPeers(map[netip.Prefix]*peer{p.subnet: p}, options{keepalive: time.Second})[p.key].endpoint; p.problem != nil || got.String() != "[2001:db8::2]:51821" {
		t.Errorf("endpoint %v, problem %v", got, p.problem)
	}
}
