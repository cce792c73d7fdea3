package hostroute

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

// What takes IPv6 packets is named as well.
func TestResolverOfIPv6(t *testing.T) {
	for name, test := range map[string]struct {
		do           []string
		ours, theirs string // in the problems; empty: none
		remedy       string
	}{
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
		t.Run(name, func(t *testing.T) {
			netnstest.Require(t)
			h := host{t, netnstest.New(t).DualHost("a")}
			for _, line := range append([]string{
				"ip link add d0 type bridge", "ip link set d0 up", "ip -6 addr add fd00:5:0:1::1/64 dev d0 nodad",
				"ip link add flannel0 type bridge", "ip link set flannel0 up", "ip -6 route add fd00:5::/48 dev flannel0 proto 85",
				"ip link add vpn0 type bridge", "ip link set vpn0 up", "sysctl -qw net.ipv6.conf.all.forwarding=1",
			}, test.do...) {
				h.run(line)
			}
			ours, theirs := h.problemsOfIPv6()
			for _, c := range []struct{ got, want string }{{ours, test.ours}, {theirs, test.theirs}} {
				if c.want == "" && c.got != "<nil>" || c.want != "" && !strings.Contains(c.got, c.want) {
					t.Errorf("got %q, want %q", c.got, c.want)
				}
			}
			if test.remedy == "" {
				return
			}
			if !strings.HasSuffix(theirs, test.remedy) {
				t.Fatalf("got %q, want the remedy %q", theirs, test.remedy)
			}
			h.run(test.remedy)
			if ours, theirs := h.problemsOfIPv6(); ours != "<nil>" || theirs != "<nil>" {
				t.Errorf("after the remedy: %s; %s", ours, theirs)
			}
		})
	}
}

// problemsOfIPv6 returns what a Resolver finds for our own subnet and for the peer's.
func (h host) problemsOfIPv6() (ours, theirs string) {
	h.Helper()
	err := h.Do(func() error {
		r, err := Open(netip.MustParsePrefix("fd00:5::/48"), netip.MustParsePrefix("fd00:5:0:1::/64"))
		if err != nil {
			return err
		}
		defer r.Close()
		ours, theirs = fmt.Sprint(r.Own()), fmt.Sprint(r.Peer(netip.MustParsePrefix("fd00:5:0:2::/64")))
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return ours, theirs
}
