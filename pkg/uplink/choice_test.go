package uplink

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func global(s string) addr { return addr{ip: ip(s), global: true} }

// sample is a host with one of everything.
func sample() host {
	return host{
		links: []link{
			{1, []string{"lo"}, 65536, true, []addr{{ip: ip("127.0.0.1")}}, "", nil},
			{2, []string{"eth0", "enp1s0"}, 1500, true, []addr{
				{ip: ip("169.254.7.7"), global: true}, {ip: ip("192.0.2.5")},
				global("192.0.2.10"), global("192.0.2.11")}, "", nil},
			{3, []string{"eth1"}, 9000, true, []addr{global("198.51.100.3")}, "", nil},
			{4, []string{"eth2"}, 1500, true, nil, "", nil},
			{5, []string{"eth3"}, 1500, false, []addr{global("203.0.113.9")}, "", nil},
			{6, []string{"flannel0"}, 1472, true, []addr{global("10.5.3.0")}, "", nil},
			{7, []string{"wlan0"}, 1500, true, []addr{{ip: ip("169.254.1.2")}}, "", nil},
		},
	}
}

// sampleRoutes has these default routes, and some others.
type sampleRoutes []hop

func (s sampleRoutes) defaults() ([]hop, error) { return s, nil }

func (sampleRoutes) to(ip4 netip.Addr) (hop, error) {
	switch ip4 {
	case ip("198.51.100.77"):
		return hop{index: 3}, nil
	case ip("192.0.2.77"):
		return hop{index: 2, src: ip("192.0.2.11")}, nil
	case ip("192.0.2.10"):
		return hop{index: 1}, nil
	case ip("10.5.9.9"):
		return hop{index: 6}, nil
	}
	return hop{}, unix.ENETUNREACH
}

func TestPick(t *testing.T) {
	tests := []struct {
		name     string
		choice   Choice
		defaults []hop // nil: eth0's
		want     string
		addr     string
		err      string
		notReady bool
	}{
		{name: "default route, first global address", want: "eth0", addr: "192.0.2.10"},
		{name: "lowest metric is down", defaults: []hop{{index: 5}, {index: 3}}, want: "eth1", addr: "198.51.100.3"},
		{name: "our own device has the default route", defaults: []hop{{index: 6}, {index: 3}}, want: "eth1", addr: "198.51.100.3"},
		{name: "preferred source of the default route", defaults: []hop{{index: 2, src: ip("192.0.2.11")}}, want: "eth0", addr: "192.0.2.11"},
		{name: "preferred source belongs to another interface", defaults: []hop{{index: 2, src: ip("198.51.100.3")}}, want: "eth0", addr: "192.0.2.10"},
		{name: "no default route", defaults: []hop{}, err: "no default route; name an interface with -iface (lo (127.0.0.1)", notReady: true},
		{name: "default route without address", defaults: []hop{{index: 4}}, err: "default route: interface eth2 has no IPv4 address", notReady: true},
		{name: "link-local only", defaults: []hop{{index: 7}}, want: "wlan0", addr: "169.254.1.2"},

		{name: "name", choice: Choice{Ifaces: []string{"eth1"}}, want: "eth1", addr: "198.51.100.3"},
		{name: "alternative name", choice: Choice{Ifaces: []string{"enp1s0"}}, want: "eth0", addr: "192.0.2.10"},
		{name: "address, though secondary", choice: Choice{Ifaces: []string{"192.0.2.11"}}, want: "eth0", addr: "192.0.2.11"},
		{name: "first match wins", choice: Choice{Ifaces: []string{"eth9", "eth1", "eth0"}}, want: "eth1", addr: "198.51.100.3"},
		{name: "unusable ones are passed over", choice: Choice{Ifaces: []string{"eth2", "eth3", "eth1"}}, want: "eth1", addr: "198.51.100.3"},
		{name: "no such name", choice: Choice{Ifaces: []string{"eth9"}}, err: "-iface=eth9: no such interface; there are lo (127.0.0.1), eth0 (169.254.7.7, 192.0.2.5, 192.0.2.10, 192.0.2.11), eth1 (198.51.100.3), eth2 (no IPv4 address), eth3 (203.0.113.9, down)"},
		{name: "no such address", choice: Choice{Ifaces: []string{"192.0.2.99"}}, err: "-iface=192.0.2.99: no interface has this address; there are lo", notReady: true},
		{name: "no address yet", choice: Choice{Ifaces: []string{"eth2"}}, err: "-iface=eth2: interface eth2 has no IPv4 address", notReady: true},
		{name: "down", choice: Choice{Ifaces: []string{"eth3"}}, err: "-iface=eth3: interface eth3 is down", notReady: true},
		{name: "address on a link that is down", choice: Choice{Ifaces: []string{"203.0.113.9"}}, err: "interface eth3 is down", notReady: true},
		{name: "loopback has no address for others", choice: Choice{Ifaces: []string{"lo"}}, err: "interface lo has no IPv4 address", notReady: true},
		{name: "loopback address", choice: Choice{Ifaces: []string{"127.0.0.1"}}, err: "a loopback address"},
		{name: "IPv6 address", choice: Choice{Ifaces: []string{"fe80::1"}}, err: "-iface=fe80::1: no interface has this address; it is not an IPv4 address", notReady: true},
		{name: "our own device", choice: Choice{Ifaces: []string{"flannel0"}}, err: "-iface=flannel0 is a device of flannel's own"},
		{name: "address of our own device", choice: Choice{Ifaces: []string{"10.5.3.0"}}, err: "a device of flannel's own"},
		{name: "one final and one to wait for", choice: Choice{Ifaces: []string{"eth9", "eth2"}}, err: "-iface=eth9: no such interface", notReady: true},
		{name: "two final", choice: Choice{Ifaces: []string{"eth8", "eth9"}}, err: "; -iface=eth9: no such interface"},
		{name: "an address to wait for beside a name that is not there", choice: Choice{Ifaces: []string{"eth9", "192.0.2.99"}}, err: "-iface=192.0.2.99: no interface has this address", notReady: true},

		{name: "regexp by name", choice: Choice{Regexes: []string{"^eth1$"}}, want: "eth1", addr: "198.51.100.3"},
		{name: "regexp by alternative name", choice: Choice{Regexes: []string{"^enp"}}, want: "eth0", addr: "192.0.2.10"},
		{name: "regexp by address", choice: Choice{Regexes: []string{`^198\.51\.`}}, want: "eth1", addr: "198.51.100.3"},
		{name: "regexp by secondary address", choice: Choice{Regexes: []string{`\.11$`}}, want: "eth0", addr: "192.0.2.11"},
		{name: "regexp skips loopback and our own", choice: Choice{Regexes: []string{`^(127\.|10\.5\.|flannel|lo)`}}, err: "matches no interface", notReady: true},
		{name: "regexp matches a link without address", choice: Choice{Regexes: []string{"eth2"}}, err: "interface eth2 has no IPv4 address", notReady: true},
		{name: "regexp skips links that are down", choice: Choice{Regexes: []string{"^203"}}, err: "matches no interface", notReady: true},
		{name: "interfaces go before regexps", choice: Choice{Ifaces: []string{"eth1"}, Regexes: []string{"eth0"}}, want: "eth1", addr: "198.51.100.3"},
		{name: "regexp after a missing interface", choice: Choice{Ifaces: []string{"eth9"}, Regexes: []string{"eth0"}}, want: "eth0", addr: "192.0.2.10"},
		{name: "bad regexp, though an interface would match", choice: Choice{Ifaces: []string{"eth1"}, Regexes: []string{"eth["}}, err: "parse -iface-regex=eth["},

		{name: "can reach", choice: Choice{CanReach: "198.51.100.77"}, want: "eth1", addr: "198.51.100.3"},
		{name: "can reach, the route's own source", choice: Choice{CanReach: "192.0.2.77"}, want: "eth0", addr: "192.0.2.11"},
		{name: "cannot reach yet", choice: Choice{CanReach: "192.0.3.1"}, err: "no route", notReady: true},
		{name: "can reach ourselves", choice: Choice{CanReach: "192.0.2.10"}, err: "is this host itself"},
		{name: "can reach through the overlay", choice: Choice{CanReach: "10.5.9.9"}, err: "reached through flannel0"},
		{name: "can reach a name", choice: Choice{CanReach: "gw.example"}, err: "-iface-can-reach=gw.example: not an IP address"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := sample()
			r := sampleRoutes{{index: 2}}
			if tt.defaults != nil {
				r = tt.defaults
			}
			u, err := tt.choice.pick(h, r)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("pick = %+v, %v; want error with %q", u, err, tt.err)
				}
				if got := errors.Is(err, errNotReady); got != tt.notReady {
					t.Fatalf("error %q is errNotReady: %v, want %v", err, got, tt.notReady)
				}
				return
			}
			if err != nil || u.Name != tt.want || u.Addr.String() != tt.addr {
				t.Fatalf("pick = %+v, %v; want %s %s", u, err, tt.want, tt.addr)
			}
			if u.Reason == "" || u.MTU == 0 || u.Index == 0 {
				t.Errorf("incomplete: %+v", u)
			}
		})
	}
}
