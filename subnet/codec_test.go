package subnet

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
)

func TestParseLease(t *testing.T) {
	for _, test := range []struct{ key, value, publicIP, backendType, data string }{
		{"10.5.52.0-24", `{"PublicIP":"1.2.3.4","PublicIPv6":null}`, "1.2.3.4", "", ""},
		{"10.5.52.0-24", `{"PublicIP":"1.2.3.4"}`, "1.2.3.4", "", ""},
		{"10.5.52.0-24", `{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}`, "1.2.3.4", "vxlan", `{"VNI":1}`},
		{"10.5.52.0-24", `{"PublicIP":"1.2.3.4","BackendData":null,"Later":[1]}`, "1.2.3.4", "", ""},
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"fd01::1"}`, "1.2.3.4", "", ""},
	} {
		l, err := ParseLease(test.key, []byte(test.value))
		if err != nil {
			t.Errorf("%s: %v", test.key, err)
			continue
		}
		if l.Subnet != netip.MustParsePrefix("10.5.52.0/24") || l.Attrs.PublicIP.String() != test.publicIP ||
			l.Attrs.BackendType != test.backendType || string(l.Attrs.BackendData) != test.data || l.Key() != test.key {
			t.Errorf("%s %s became %+v", test.key, test.value, l)
		}
	}
}

// Each family has its address and its data. A fault in those of IPv6 does not hide
// the IPv4 part.
func TestParseLeaseFamilies(t *testing.T) {
	for _, test := range []struct{ key, value, want string }{
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"2001:db8::1","BackendType":"vxlan","BackendData":{"VNI":1},"BackendV6Data":{"VNI":2}}`,
			`1.2.3.4 {"VNI":1} 2001:db8::1 {"VNI":2}`},
		{"0.0.0.0-0&fd00:0:0:34::-64", `{"PublicIP":"0.0.0.0","PublicIPv6":"fd01::1","BackendV6Data":null}`, `invalid IP  fd01::1 `},
		{"10.5.52.0-24", `{"PublicIP":"0.0.0.0","PublicIPv6":"fd01::1"}`, `invalid IP  fd01::1 `},
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"nonsense","BackendV6Data":{"VNI":2}}`, `1.2.3.4  invalid IP `},
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"ff02::1"}`, `1.2.3.4  invalid IP `},
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"::ffff:1.2.3.5"}`, `1.2.3.4  invalid IP `},
		{"10.5.52.0-24&fd00:0:0:34::-64", `{"PublicIP":"1.2.3.4","PublicIPv6":"fe80::1%eth0"}`, `1.2.3.4  invalid IP `},
	} {
		l, err := ParseLease(test.key, []byte(test.value))
		if err != nil {
			t.Errorf("%s: %v", test.key, err)
			continue
		}
		got := fmt.Sprintf("%v %s %v %s", l.Attrs.Addr(inet.IPv4), l.Attrs.Data(inet.IPv4), l.Attrs.Addr(inet.IPv6), l.Attrs.Data(inet.IPv6))
		if got != test.want || l.Key() != test.key {
			t.Errorf("%s %s became %q, want %q", test.key, test.value, got, test.want)
		}
		value, err := EncodeLease(l)
		if err != nil {
			t.Errorf("encode %+v: %v", l, err)
		} else if again, err := ParseLease(l.Key(), value); err != nil || !again.same(&l) {
			t.Errorf("%s became %+v, %v; want %+v", value, again, err, l)
		}
	}
}

// Extras are decoded. If another program uses their names with other types, they
// are ignored.
func TestParseExtras(t *testing.T) {
	for value, want := range map[string]Extras{
		`{"PublicIP":"1.2.3.4","NodeID":"a","Hostname":"b","Claim":"c","DataPath":"d"}`: {NodeID: "a", Hostname: "b", Challenge: "c", DataPath: "d"},
		`{"PublicIP":"1.2.3.4","NodeID":7,"Hostname":"b"}`:                              {},
		`{"PublicIP":"1.2.3.4"}`: {},
	} {
		l, err := ParseLease("10.5.52.0-24", []byte(value))
		if err != nil || l.Attrs.Extras != want || !l.Attrs.PublicIP.IsValid() {
			t.Errorf("%s became %+v, %v", value, l, err)
		}
	}
}

func TestParseLeaseRefuses(t *testing.T) {
	good := `{"PublicIP":"1.2.3.4"}`
	for _, test := range []struct{ key, value string }{
		{"", good}, {"10.5.52.0", good}, {"10.5.52.0-", good}, {"10.5.52.0-33", good}, {"10.5.52.0-0", good},
		{"10.5.52.7-24", good}, {"10.5.52.0-024", good}, {"010.5.52.0-24", good}, {"10.5.52.0-24/x", good},
		{"10.5.52.0-24 ", good}, {"10.5.52.0-+24", good}, {"fd00::-64", good}, {"10.5.52.0-24&", good},
		{"10.5.52.0-24&10.5.53.0-24", good}, {"0.0.0.0-0", good}, {"0.0.0.0-0&fd00::-0", good}, {"0.0.0.0-0&10.5.53.0-24", good},
		{"fd00::-64&fd00::-64", good}, {"10.5.52.0-24&::ffff:10.5.0.0-112", good}, {"10.5.52.0-24&fd00::1-64", good},
		{"0.0.0.0-0&fd00:0:0:34::-64", `{"PublicIP":"0.0.0.0","PublicIPv6":null}`},
		{"hello", good},
		{"10.5.52.0-24", ``}, {"10.5.52.0-24", `{`}, {"10.5.52.0-24", `null`}, {"10.5.52.0-24", `"1.2.3.4"`},
		{"10.5.52.0-24", `{}`}, {"10.5.52.0-24", `{"PublicIP":"x"}`}, {"10.5.52.0-24", `{"PublicIP":"0.0.0.0"}`},
		{"10.5.52.0-24", `{"PublicIP":"127.0.0.1"}`}, {"10.5.52.0-24", `{"PublicIP":"255.255.255.255"}`}, {"10.5.52.0-24", `{"PublicIP":"224.0.0.1"}`},
		{"10.5.52.0-24", `{"PublicIP":"224.0.0.1"}`}, {"10.5.52.0-24", `{"PublicIP":"::1"}`},
	} {
		if l, err := ParseLease(test.key, []byte(test.value)); err == nil {
			t.Errorf("key %q value %q became %+v, want an error", test.key, test.value, l)
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("10.5.52.0-24")
	f.Add("10.5.52.0-24&fd00:0:0:34::-64")
	f.Add("0.0.0.0-0&fd00:0:0:34::-64")
	f.Fuzz(func(t *testing.T, key string) {
		l, err := ParseKey(key)
		if err == nil && (l.Key() != key || l.first() != l.first().Masked() || l.first().Bits() < 1) {
			t.Errorf("key %q became %+v, which is %q", key, l, l.Key())
		}
	})
}
