package subnet

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/pkg/inet"
)

func TestParseConfigAccepts(t *testing.T) {
	for _, test := range []struct {
		name, json         string
		network            string
		subnetLen          int
		subnetMin, maximum string
		backend            string
	}{
		{"network alone", `{"Network": "10.5.0.0/16"}`, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
		{"every key", `{"Network": "10.0.0.0/8", "SubnetLen": 20, "SubnetMin": "10.10.0.0", "SubnetMax": "10.99.0.0", "Backend": {"Type": "vxlan", "VNI": 2}}`,
			"10.0.0.0/8", 20, "10.10.0.0", "10.99.0.0", "vxlan"},
		{"keys in any case", `{"network": "10.5.0.0/16", "SUBNETLEN": 26, "backend": {"type": "UDP"}}`, "10.5.0.0/16", 26, "10.5.0.64", "10.5.255.192", "udp"},
		{"host bits in Network", `{"Network": "10.5.7.9/16"}`, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
		{"/23 has two subnets", `{"Network": "10.5.0.0/23"}`, "10.5.0.0/23", 24, "10.5.1.0", "10.5.1.0", "udp"},
		{"/24 is halved", `{"Network": "10.5.0.0/24"}`, "10.5.0.0/24", 25, "10.5.0.128", "10.5.0.128", "udp"},
		{"/29 is the smallest", `{"Network": "10.5.0.0/29"}`, "10.5.0.0/29", 30, "10.5.0.4", "10.5.0.4", "udp"},
		{"one subnet", `{"Network": "10.5.0.0/24", "SubnetLen": 24}`, "10.5.0.0/24", 24, "10.5.0.0", "10.5.0.0", "udp"},
		{"first subnet by wish", `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.0.0"}`, "10.5.0.0/16", 24, "10.5.0.0", "10.5.255.0", "udp"},
		{"zeros and nulls are defaults", `{"Network": "10.5.0.0/16", "SubnetLen": 0, "SubnetMin": "0.0.0.0", "SubnetMax": null, "Backend": null}`,
			"10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
		{"backend without type", `{"Network": "10.5.0.0/16", "Backend": {"Port": 7890}}`, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
		{"IPv6 too, and its switch", `{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:5::/48"}`, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
		{"unknown keys", `{"Network": "10.5.0.0/16", "EnableNFTables": true, "Comment": []}`, "10.5.0.0/16", 24, "10.5.1.0", "10.5.255.0", "udp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := ParseConfig([]byte(test.json))
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%v %d %v %v %s", c.Network, c.SubnetLen, c.SubnetMin, c.SubnetMax, c.BackendType)
			want := fmt.Sprintf("%s %d %s %s %s", test.network, test.subnetLen, test.subnetMin, test.maximum, test.backend)
			if got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// The families are enabled by their switch, or by their network. "::/0" and
// "0.0.0.0/0" are none.
func TestParseConfigFamilies(t *testing.T) {
	const dual = "10.5.0.0/16 24 10.5.1.0 10.5.255.0, fd00:5::/48 64 fd00:5:0:1:: fd00:5:0:ffff::"
	for json, want := range map[string]string{
		`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48"}`:                                                                dual,
		`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv4": true, "EnableIPv6": true}`:                        dual,
		`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv6": false}`:                                           "10.5.0.0/16 24 10.5.1.0 10.5.255.0",
		`{"Network": "10.5.0.0/16", "IPv6Network": "::/0"}`:                                                                       "10.5.0.0/16 24 10.5.1.0 10.5.255.0",
		`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "EnableIPv4": false, "EnableIPv6": true}`:                       "fd00:5::/48 64 fd00:5:0:1:: fd00:5:0:ffff::",
		`{"Network": "0.0.0.0/0", "IPv6Network": "fd00:5::/48"}`:                                                                  "fd00:5::/48 64 fd00:5:0:1:: fd00:5:0:ffff::",
		`{"IPv6Network": "fd00:5::/63"}`:                                                                                          "fd00:5::/63 65 fd00:5:0:0:8000:: fd00:5:0:1:8000::",
		`{"IPv6Network": "fd00:5::/124"}`:                                                                                         "fd00:5::/124 126 fd00:5::4 fd00:5::c",
		`{"IPv6Network": "2001:DB8::/32", "IPv6SubnetLen": 56, "IPv6SubnetMin": "2001:db8:1::", "IPv6SubnetMax": "2001:db8:2::"}`: "2001:db8::/32 56 2001:db8:1:: 2001:db8:2::",
	} {
		c, err := ParseConfig([]byte(json))
		if err != nil {
			t.Errorf("%s: %v", json, err)
			continue
		}
		checkConfig(t, c)
		var got []string
		for _, f := range c.Families() {
			r := c.RangeOf(f)
			got = append(got, fmt.Sprintf("%v %d %v %v", r.Network, r.SubnetLen, r.SubnetMin, r.SubnetMax))
		}
		if text := strings.Join(got, ", "); text != want {
			t.Errorf("%s:\n got %s\nwant %s", json, text, want)
		}
	}
}

func TestParseConfigRefuses(t *testing.T) {
	for _, test := range []struct{ json, want string }{
		{``, `network configuration is empty`},
		{`{"Network": "10.5.0.0/16"`, `not valid JSON at byte 25`},
		{`[]`, `is a JSON array; it must be an object`},
		{`{}`, `Network is missing`},
		{`{"Network": ""}`, `Network is missing`},
		{`{"Network": 10}`, `Network 10 must be an IPv4 network in CIDR notation`},
		{`{"Network": "10.5.0.0"}`, `Network 10.5.0.0 must be an IPv4 network`},
		{`{"Network": "fd00::/48"}`, `Network fd00::/48 must be an IPv4 network`},
		{`{"Network": "0.0.0.0/0"}`, `Network 0.0.0.0/0 is the whole Internet`},
		{`{"Network": "127.5.0.0/16"}`, `Network 127.5.0.0/16 overlaps the loopback range`},
		{`{"Network": "224.0.0.0/3"}`, `overlaps the multicast range`},
		{`{"Network": "0.5.0.0/16"}`, `Network 0.5.0.0/16 overlaps the this-network range`},
		{`{"Network": "169.254.128.0/17"}`, `overlaps the link-local range`},
		{`{"Network": "240.0.0.0/4"}`, `overlaps the broadcast range`},
		{`{"Network": "255.255.255.0/24"}`, `overlaps the broadcast range`},
		{`{"Network": "10.5.0.0/30"}`, `Network 10.5.0.0/30 is too small`},
		{`{"Network": "10.5.0.0/32"}`, `Network 10.5.0.0/32 is too small`},
		{`{"Network": "10.5.0.0/16", "SubnetLen": 31}`, `SubnetLen 31 must be at most 30`},
		{`{"Network": "10.5.0.0/16", "SubnetLen": 15}`, `SubnetLen 15 makes a subnet larger than Network 10.5.0.0/16`},
		{`{"Network": "10.5.0.0/16", "SubnetLen": -1}`, `SubnetLen -1 must be a whole number`},
		{`{"Network": "10.5.0.0/16", "SubnetLen": "24"}`, `SubnetLen "24" must be a whole number`},
		{`{"Network": "10.5.0.0/16", "SubnetMin": "10.4.0.0"}`, `SubnetMin 10.4.0.0 is outside Network 10.5.0.0/16`},
		{`{"Network": "10.5.0.0/16", "SubnetMax": "10.6.0.0"}`, `SubnetMax 10.6.0.0 is outside Network 10.5.0.0/16`},
		{`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.1.1"}`, `SubnetMin 10.5.1.1 is not the first address of a /24 subnet; the one that it lies in begins at 10.5.1.0`},
		{`{"Network": "10.5.0.0/16", "SubnetMax": "10.5.255.255"}`, `SubnetMax 10.5.255.255 is not the first address`},
		{`{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0", "SubnetMax": "10.5.8.0"}`, `SubnetMin 10.5.9.0 is after SubnetMax 10.5.8.0`},
		{`{"Network": "10.5.0.0/16", "SubnetMin": ""}`, `SubnetMin "" must be an IPv4 address`},
		{`{"Network": "10.5.0.0/16", "SubnetMin": "x"}`, `SubnetMin "x" must be an IPv4 address`},
		{`{"Network": "10.5.0.0/16", "Backend": "udp"}`, `Backend "udp" must be an object`},
		{`{"Network": "10.5.0.0/16", "Backend": {"Type": 5}}`, `must have a string as its "Type"`},
		{`{"Network": "10.5.0.0/16", "EnableIPv4": false}`, `EnableIPv4 false leaves the network without a family`},
		{`{"Network": "10.5.0.0/16", "EnableIPv4": "no"}`, `EnableIPv4 "no" must be true or false`},
		{`{"Network": "10.5.0.0/16", "EnableIPv6": 1}`, `EnableIPv6 1 must be true or false`},
		{`{"Network": "10.5.0.0/16", "EnableIPv6": true}`, `IPv6Network is missing`},
		{`{"EnableIPv4": true, "IPv6Network": "fd00:5::/48"}`, `Network is missing`},
		{`{"IPv6Network": "fd00:5::"}`, `IPv6Network fd00:5:: must be an IPv6 network`},
		{`{"IPv6Network": "10.5.0.0/16"}`, `IPv6Network 10.5.0.0/16 must be an IPv6 network`},
		{`{"IPv6Network": "::ffff:10.5.0.0/112"}`, `must be an IPv6 network`},
		{`{"IPv6Network": "::/0", "EnableIPv6": true, "EnableIPv4": false}`, `IPv6Network ::/0 is the whole Internet`},
		{`{"IPv6Network": "fe80::/48"}`, `overlaps the link-local range`},
		{`{"IPv6Network": "ff05::/48"}`, `overlaps the multicast range`},
		{`{"IPv6Network": "::/64"}`, `overlaps the unspecified, loopback and IPv4-compatible range`},
		{`{"IPv6Network": "fd00:5::/125"}`, `IPv6Network fd00:5::/125 is too small: it must hold two subnets of /126 or larger, so it must be /124 or larger`},
		{`{"IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 127}`, `IPv6SubnetLen 127 must be at most 126`},
		{`{"IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 47}`, `IPv6SubnetLen 47 makes a subnet larger than IPv6Network fd00:5::/48`},
		{`{"IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "fd00:6::"}`, `IPv6SubnetMin fd00:6:: is outside IPv6Network fd00:5::/48`},
		{`{"IPv6Network": "fd00:5::/48", "IPv6SubnetMax": "fd00:5:0:1::1"}`, `IPv6SubnetMax fd00:5:0:1::1 is not the first address of a /64 subnet`},
		{`{"IPv6Network": "fd00:5::/48", "IPv6SubnetMin": "10.5.1.0"}`, `IPv6SubnetMin "10.5.1.0" must be an IPv6 address`},
	} {
		_, err := ParseConfig([]byte(test.json))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s:\n got %v\nwant %s", test.json, err, test.want)
		}
	}
}

// checkConfig fails unless c keeps the rules that all users of a Config rely on.
func checkConfig(t interface{ Fatalf(string, ...any) }, c *Config) {
	for _, f := range c.Families() {
		r := c.RangeOf(f)
		for _, end := range []netip.Addr{r.SubnetMin, r.SubnetMax} {
			if p := netip.PrefixFrom(end, r.SubnetLen); p != p.Masked() || !r.Network.Contains(end) || !r.Network.Contains(LastAddr(p)) || !r.Allows(p) {
				t.Fatalf("%+v: %v is not one of its subnets", c, p)
			}
		}
		if r.SubnetMax.Less(r.SubnetMin) || r.Network != r.Network.Masked() || r.SubnetLen > f.Bits()-2 || inet.Of(r.SubnetMin) != f {
			t.Fatalf("%+v breaks a rule", c)
		}
	}
	if len(c.Families()) == 0 || c.BackendType == "" {
		t.Fatalf("%+v breaks a rule", c)
	}
}

// A configuration with an aligned range inside Network is accepted as it is.
func TestParseConfigProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.IntRange(1, 30).Draw(t, "bits")
		network := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(rapid.IntRange(1, 126).Draw(t, "a")), 0, 0, 0}), 8).Masked()
		if bits > 8 {
			b := rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, "addr")
			network = netip.PrefixFrom(netip.AddrFrom4([4]byte{network.Addr().As4()[0], b[0], b[1], b[2]}), bits).Masked()
		}
		subnetLen := rapid.IntRange(network.Bits(), ipv4Keys.maxLen).Draw(t, "subnetLen")
		last := uint32(1)<<(subnetLen-network.Bits()) - 1
		lo := rapid.Uint32Range(0, last).Draw(t, "lo")
		hi := rapid.Uint32Range(lo, last).Draw(t, "hi")
		minimum, maximum := nthSubnet(network, subnetLen, lo), nthSubnet(network, subnetLen, hi)
		if minimum.IsUnspecified() {
			t.Skip("0.0.0.0 means the default")
		}
		data, err := json.Marshal(map[string]any{
			"Network": network, "SubnetLen": subnetLen,
			"SubnetMin": minimum, "SubnetMax": maximum,
		})
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseConfig(data)
		if err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		checkConfig(t, c)
		if c.Network != network || c.SubnetLen != subnetLen || c.SubnetMin != minimum || c.SubnetMax != maximum {
			t.Fatalf("%s became %+v", data, c)
		}
	})
}

// nthSubnet returns the first address of the n-th subnet of network.
func nthSubnet(network netip.Prefix, subnetLen int, n uint32) netip.Addr {
	first := network.Addr().As4()
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(first[:])+n<<(32-subnetLen))
	return netip.AddrFrom4(a)
}

func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{
		`{"Network": "10.5.0.0/16"}`,
		`{"Network": "10.5.0.0/16", "SubnetLen": 24, "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.9.0", "Backend": {"Type": "udp", "Port": 1}}`,
		`{"Network": "255.255.255.252/30", "SubnetLen": 30}`,
		`{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48", "IPv6SubnetLen": 80, "IPv6SubnetMin": "fd00:5:0:1::", "EnableIPv6": true}`, `{"Network": "0.0.0.0/1"}`, `[`, `null`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := ParseConfig(data); err == nil {
			checkConfig(t, c)
		}
	})
}
