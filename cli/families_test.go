package cli

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/subnetfile"
)

// dualEnv is a subnet.env of both families.
var dualEnv = subnetfile.Env{
	Network: netip.MustParsePrefix("10.5.0.0/16"), Subnet: netip.MustParsePrefix("10.5.72.0/24"),
	IPv6Network: netip.MustParsePrefix("fd00:5::/48"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:48::/64"), MTU: 1430, IPMasq: true,
}

// onlyIPv6 is env without IPv4.
func onlyIPv6(env subnetfile.Env) subnetfile.Env {
	env.Network, env.Subnet = netip.Prefix{}, netip.Prefix{}
	return env
}

// Docker gets the IPv6 subnet beside the IPv4 bridge address, or alone.
func TestDockerOptsOfFamilies(t *testing.T) {
	both := dockerOpts(dualEnv, false, true, "DOCKER_OPTS", true)
	if want := "DOCKER_OPTS=\" --bip=10.5.72.1/24 --ipv6 --fixed-cidr-v6=fd00:5:0:48::/64 --ip-masq=false --mtu=1430\"\n"; both != want {
		t.Errorf("got %s, want %s", both, want)
	}
	alone := dockerOpts(onlyIPv6(dualEnv), true, false, "DOCKER_OPTS", false)
	if want := "DOCKER_OPT_IPV6=\"--ipv6\"\nDOCKER_OPT_FIXED_CIDR_V6=\"--fixed-cidr-v6=fd00:5:0:48::/64\"\nDOCKER_OPT_MTU=\"--mtu=1430\"\n"; alone != want {
		t.Errorf("got %s, want %s", alone, want)
	}
}

// A container gets an address of each range, the IPv4 one first, and a default route
// of each family.
func TestCNIConfOfFamilies(t *testing.T) {
	for want, env := range map[string]subnetfile.Env{
		`"ranges":[[{"subnet":"10.5.72.0/24","gateway":"10.5.72.1"}],[{"subnet":"fd00:5:0:48::/64","gateway":"fd00:5:0:48::1"}]],"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`: dualEnv,
		`"ranges":[[{"subnet":"fd00:5:0:48::/64","gateway":"fd00:5:0:48::1"}]],"routes":[{"dst":"::/0"}]`:                                                                       onlyIPv6(dualEnv),
	} {
		text, err := json.Marshal(bridgeConf(env, "flannel", "cni0"))
		if err != nil || !strings.Contains(string(text), want) {
			t.Errorf("got %s, %v; want %s", text, err, want)
		}
	}
}
