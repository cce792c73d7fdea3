package bpf

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
)

// networks contain all hosts' subnets, by family.
var networks = [2]netip.Prefix{netip.MustParsePrefix("10.5.0.0/16"), netip.MustParsePrefix("fd00:5::/48")}

// families are those of a test's packets and datagrams.
type families struct{ inner, outer inet.Family }

func (f families) String() string { return fmt.Sprintf("%v in %v", f.inner, f.outer) }

// overhead is the length of the outer headers.
func (f families) overhead() int { return f.outer.HeaderLen() + 8 }

// mtu is the device's.
func (f families) mtu() int { return 1500 - f.overhead() }

// laterFamilies are all but IPv4 in IPv4, which most tests have.
var laterFamilies = []families{{inet.IPv6, inet.IPv4}, {inet.IPv6, inet.IPv6}, {inet.IPv4, inet.IPv6}}

// eachFamilies runs a test with IPv4 in IPv4, and with the other families.
func eachFamilies(t *testing.T, test func(t *testing.T, f families)) {
	for _, f := range append([]families{{}}, laterFamilies...) {
		t.Run(f.String(), func(t *testing.T) {
			f.require(t)
			test(t, f)
		})
	}
}

// require skips the test if the kernel does not unwrap a packet of the other family.
func (f families) require(t *testing.T) {
	t.Helper()
	netnstest.Require(t)
	mixed, err := UnwrapsMixed()
	if err != nil {
		t.Fatal(err)
	}
	if f.inner != f.outer && !mixed {
		netnstest.MixedDecap.Skip(t, "no flag BPF_F_ADJ_ROOM_DECAP_L3_*")
	}
}
