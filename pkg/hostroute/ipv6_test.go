package hostroute

import (
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// newIPv6Host is newHost for IPv6, with one more interface.
func newIPv6Host(t *testing.T) host {
	t.Helper()
	netnstest.Require(t)
	h := host{t, netnstest.New(t).DualHost("a"),
		netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("fd00:5:0:1::/64"), netip.MustParsePrefix("fd00:5:0:2::/64")}
	for _, line := range []string{
		"ip link add d0 type bridge", "ip link set d0 up", "ip -6 addr add fd00:5:0:1::1/64 dev d0 nodad",
		"ip link add flannel0 type bridge", "ip link set flannel0 up", "ip -6 route add fd00:5::/48 dev flannel0 proto 85",
		"ip link add vpn0 type bridge", "ip link set vpn0 up", "sysctl -qw net.ipv6.conf.all.forwarding=1",
	} {
		h.Exec(line)
	}
	return h
}

// What takes IPv6 packets is named as well.
func TestResolverOfIPv6(t *testing.T) {
	for name, c := range map[string]interference{
		"nothing":              {},
		"a network in Network": {do: []string{"ip -6 addr add fd00:5:0::1/62 dev vpn0 nodad"}, theirs: "to vpn0 (route fd00:5::/62, table main)"},
		"a table before main": {do: []string{"ip -6 route add fd00:5::/48 dev vpn0 table 52", "ip -6 rule add pref 5270 lookup 52"},
			ours: "to vpn0 (route fd00:5::/48, table 52)", theirs: "to vpn0 (route fd00:5::/48, table 52)", remedy: "ip -6 rule add priority 5269 to fd00:5::/48 lookup main"},
		"a default route before main": {do: []string{"ip -6 route add default dev vpn0 table 52", "ip -6 rule add pref 5270 lookup 52"},
			ours: "to vpn0 (route ::/0, table 52)", theirs: "to vpn0 (route ::/0, table 52)"},
		"a rule for packets of a bridge": {do: []string{"ip -6 route add default dev vpn0 table 52", "ip -6 rule add pref 5270 iif d0 lookup 52"},
			theirs: "to vpn0 (route ::/0, table 52)"},
		"a rule that prohibits":       {do: []string{"ip -6 rule add pref 100 to fd00:5:0:2::/64 prohibit"}, theirs: "type prohibit takes packets for fd00:5:0:2::/64"},
		"a route that swallows":       {do: []string{"ip -6 route add blackhole fd00:5:0:2::/64"}, theirs: "type blackhole takes packets for fd00:5:0:2::/64"},
		"a route that is unreachable": {do: []string{"ip -6 route add unreachable fd00:5:0:2::/64"}, theirs: "type unreachable takes packets for fd00:5:0:2::/64"},
		"no route of flannel's":       {do: []string{"ip -6 route del fd00:5::/48"}},
		"forwarding is off":           {do: []string{"sysctl -qw net.ipv6.conf.all.forwarding=0"}},
		"no bridge":                   {do: []string{"ip link del d0"}},
	} {
		t.Run(name, func(t *testing.T) { c.check(newIPv6Host(t)) })
	}
}

// A running Checker of IPv6 follows addresses, routes and rules.
func TestCheckerFollowsIPv6(t *testing.T) {
	newIPv6Host(t).follows([]change{
		{"ip -6 rule add pref 100 to fd00:5:0:2::/64 prohibit", "ip -6 rule del pref 100"},
		{"ip -6 route add fd00:5:0:2::/65 dev vpn0", "ip -6 route del fd00:5:0:2::/65"},
		{"ip -6 addr add fd00:5:0::1/62 dev vpn0 nodad", "ip -6 addr del fd00:5:0::1/62 dev vpn0"},
	})
}
