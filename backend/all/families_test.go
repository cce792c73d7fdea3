package all

import (
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
)

// A backend without encapsulation, or with a device for each family, carries a family
// between addresses of that family. Others carry both between addresses of either;
// their Mode chooses.
func TestCarriesAndOutside(t *testing.T) {
	v4, v6, both := []inet.Family{inet.IPv4}, []inet.Family{inet.IPv6}, []inet.Family{inet.IPv4, inet.IPv6}
	for _, test := range []struct {
		backend, options string
		inside, outside  []inet.Family // what Outside makes of inside
		mixed            bool          // carries IPv6 between IPv4 addresses
	}{
		{"vxlan", "", both, both, false}, {"vxlan", `{"Mode": "ipv6"}`, both, both, false}, {"host-gw", "", v6, v6, false}, {"host-gw", "", v4, v4, false},
		{"udp", "", v4, v4, true}, {"udp", "", both, both, true}, {"udp", `{"mode": "IPv6"}`, v4, v6, true}, {"udp", `{"Mode": "auto"}`, v6, v6, true},
		{"wireguard", `{"Mode": "ipv4"}`, both, v4, true}, {"wireguard", `{"Mode": "separate"}`, both, both, true}, {"alloc", "", both, both, true},
		{"udp", `{"Mode": 7}`, both, both, true}, {"no such backend", "", both, v4, false},
	} {
		if got := Outside(test.backend, []byte(test.options), test.inside); !slices.Equal(got, test.outside) {
			t.Errorf("%s %s: outside of %v is %v, want %v", test.backend, test.options, test.inside, got, test.outside)
		}
		if err := Carries(test.backend, inet.IPv6, v4); (err == nil) != test.mixed {
			t.Errorf("%s: IPv6 between IPv4 addresses: %v", test.backend, err)
		}
		if err := Carries(test.backend, inet.IPv4, v4); err != nil {
			t.Errorf("%s: IPv4: %v", test.backend, err)
		}
		if err := Carries(test.backend, inet.IPv4, nil); err == nil {
			t.Errorf("%s: IPv4 without an address gives no error", test.backend)
		}
	}
}
