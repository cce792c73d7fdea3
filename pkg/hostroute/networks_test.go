package hostroute

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

func TestNetworksAndConflicts(t *testing.T) {
	h := newHost(t)
	for _, line := range []string{
		"ip addr add 10.9.9.9/32 dev lo", "ip link add docker0 type bridge", "ip addr add 172.17.0.1/16 dev docker0", "ip link set docker0 up",
		"ip route add 172.19.3.0/24 via 192.168.77.254", "ip route add 172.20.0.0/16 via 192.168.77.254 table 52", "ip route add blackhole 172.21.0.0/16 metric 5",
		"ip route add 10.7.0.0/16 via 192.168.77.254",
	} {
		h.Exec(line)
	}
	var have []Network
	if err := h.Do(func() (err error) { have, err = Networks(netip.MustParsePrefix("0.0.0.0/0")); return err }); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(have)
	for _, want := range []string{"10.9.9.9/32 of lo", "172.17.0.0/16 of docker0", "172.18.5.0/24 of d0", "172.19.3.0/24 of ", "172.20.0.0/16 of ", "172.21.0.0/16 of a route"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %s", want, text)
		}
	}
	if strings.Contains(text, "flannel0") {
		t.Errorf("got %s", text)
	}
	if err := h.Do(func() error {
		only, err := Networks(netip.MustParsePrefix("172.19.0.0/16"))
		if fmt.Sprint(only) != "[172.19.3.0/24 of "+netnstest.Uplink+"]" {
			t.Errorf("within 172.19.0.0/16: %v", only)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for network, want := range map[string]string{
		"172.17.0.0/16": "172.17.0.1, the address of docker0", "172.17.0.0/20": "172.17.0.1, the address of docker0", "172.17.64.0/20": "", "172.16.0.0/13": "", "10.5.0.0/16": "",
		"10.7.0.0/16": "another program's route 10.7.0.0/16", "172.20.0.0/16": "", "172.21.0.0/16": "",
	} {
		err := Conflict(have, netip.MustParsePrefix(network))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("Conflict with %s: %v, want %q", network, err, want)
		}
	}
}

// The networks of IPv6 are found in the same way.
func TestIPv6Networks(t *testing.T) {
	h := newHost(t)
	for _, line := range []string{
		"ip link add docker0 type bridge", "ip addr add fd00:17::1/64 dev docker0 nodad", "ip link set docker0 up",
		"ip -6 route add fd00:19::/48 dev docker0", "ip -6 route add unreachable fd00:21::/48 metric 5",
	} {
		h.Exec(line)
	}
	if err := h.Do(func() error {
		have, err := Networks(netip.MustParsePrefix("fd00::/16"))
		if got, want := fmt.Sprint(have), "[fd00:17::/64 of docker0 fd00:19::/48 of docker0 fd00:21::/48 of lo]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if err := Conflict(have, netip.MustParsePrefix("fd00:17::/80")); err == nil || !strings.Contains(err.Error(), "fd00:17::1, the address of docker0") {
			t.Errorf("Conflict: %v", err)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Subnets of the host's own networks are never handed out; a bridge of a subnet's
// size is the last choice.
func TestUnusable(t *testing.T) {
	lan := Network{Prefix: netip.MustParsePrefix("172.31.9.0/24"), Addr: netip.MustParseAddr("172.31.9.1"), Dev: "eth0"}
	storage := Network{Prefix: netip.MustParsePrefix("172.31.8.0/24"), Addr: netip.MustParseAddr("172.31.8.1"), Dev: "eth1"}
	bridge := Network{Prefix: netip.MustParsePrefix("172.31.7.0/24"), Addr: netip.MustParseAddr("172.31.7.1"), Dev: "docker0", Bridge: true}
	wide := Network{Prefix: netip.MustParsePrefix("172.31.32.0/20"), Addr: netip.MustParseAddr("172.31.32.1"), Dev: "br-compose", Bridge: true}
	around := Network{Prefix: netip.MustParsePrefix("172.16.0.0/12"), Addr: netip.MustParseAddr("172.31.6.1"), Dev: "eth2"}
	apart := Network{Prefix: netip.MustParsePrefix("172.16.0.0/12"), Addr: netip.MustParseAddr("172.16.0.1"), Dev: "eth3"}
	route := Network{Prefix: netip.MustParsePrefix("172.31.5.0/24")}
	for _, test := range []struct {
		have        Network
		never, last string
	}{
		{lan, "172.31.9.0/24", ""}, {storage, "172.31.8.0/24", ""}, {bridge, "", "172.31.7.0/24"}, {wide, "172.31.32.0/20", ""},
		{around, "172.31.6.1/32", ""}, {apart, "", ""}, {route, "172.31.5.0/24", ""},
	} {
		never, last := Unusable([]Network{test.have}, netip.MustParsePrefix("172.31.0.0/16"), 24, "eth0")
		text := func(list []Network) string {
			if len(list) == 0 {
				return ""
			}
			return list[0].Prefix.String()
		}
		if text(never) != test.never || text(last) != test.last {
			t.Errorf("%v: never %v, last %v; want %q, %q", test.have, never, last, test.never, test.last)
		}
	}
}
