package subnet

import (
	"slices"
	"testing"
)

func TestConfigText(t *testing.T) {
	for arg, want := range map[string]string{
		"10.5.0.0/16":                 `{"Network": "10.5.0.0/16"}`,
		` {"Network":"10.5.0.0/16"} `: ` {"Network":"10.5.0.0/16"} `,
		`10.5.0.0/16" "SubnetLen": "`: `{"Network": "10.5.0.0/16\" \"SubnetLen\": \""}`,
		"fd00:5::/48":                 `{"IPv6Network": "fd00:5::/48"}`,
		"10.5.0.0/16,fd00:5::/48":     `{"Network": "10.5.0.0/16", "IPv6Network": "fd00:5::/48"}`,
		`10.5.0.0/16,", "Network": "`: `{"Network": "10.5.0.0/16", "IPv6Network": "\", \"Network\": \""}`,
	} {
		if got := string(ConfigText(arg)); got != want {
			t.Errorf("ConfigText(%q) = %s, want %s", arg, got, want)
		}
	}
}

func TestConfigDiff(t *testing.T) {
	const base = `{"Network": "10.5.0.0/16"}`
	for _, test := range []struct {
		before, after string
		want          []ConfigDifference
	}{
		{base, `{ "network" : "10.5.0.0/16", "SubnetLen": 24, "Backend": {"Type": "udp"}, "Unknown": 1}`, nil},
		{base, `{"Network": "10.5.0.0/16", "Backend": {"Type": "UDP"}}`, nil},
		{base, `{"Network": "10.5.0.0/16", "Backend": {}}`, nil},
		{`{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan", "VNI": 7}}`, `{"Network": "10.5.0.0/16", "Backend": {"vni": 7, "type": "VXLAN"}}`, nil},
		{base, `{"Network": "10.6.0.0/16"}`, []ConfigDifference{{"Network", "10.5.0.0/16", "10.6.0.0/16"},
			{"SubnetMin", "10.5.1.0", "10.6.1.0"}, {"SubnetMax", "10.5.255.0", "10.6.255.0"}}},
		{base, `{"Network": "10.5.0.0/16", "SubnetMin": "10.5.9.0"}`, []ConfigDifference{{"SubnetMin", "10.5.1.0", "10.5.9.0"}}},
		{base, `{"Network": "10.5.0.0/16", "SubnetLen": 25, "SubnetMin": "10.5.1.0", "SubnetMax": "10.5.255.0"}`,
			[]ConfigDifference{{"SubnetLen", "24", "25"}}},
		{base, `{"Network": "10.5.0.0/16", "Backend": {"Type": "VXLAN"}}`,
			[]ConfigDifference{{"Backend.Type", "udp", "vxlan"}, {"Backend", `{"Type":"udp"}`, `{"Type":"VXLAN"}`}}},
		{base, `{"Network": "10.5.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00::/48"}`,
			[]ConfigDifference{{"IPv6Network", "", "fd00::/48"}}},
		{`{"Network": "10.5.0.0/16", "IPv6Network": "fd00::/48"}`, `{"Network": "10.5.0.0/16", "IPv6Network": "fd00::/48", "IPv6SubnetLen": 56}`,
			[]ConfigDifference{{"IPv6SubnetLen", "64", "56"}, {"IPv6SubnetMin", "fd00:0:0:1::", "fd00:0:0:100::"}, {"IPv6SubnetMax", "fd00:0:0:ffff::", "fd00:0:0:ff00::"}}},
		{`{"Network": "10.5.0.0/16", "Backend": {"Type": "wireguard", "PSK": "one"}}`, `{"Network": "10.5.0.0/16", "Backend": {"Type": "wireguard", "psk": "two"}}`,
			[]ConfigDifference{{"Backend", `{"PSK":"…","Type":"wireguard"}`, `{"Type":"wireguard","psk":"…"}`}}},
	} {
		before, err := ParseConfig([]byte(test.before))
		if err != nil {
			t.Fatal(err)
		}
		after, err := ParseConfig([]byte(test.after))
		if err != nil {
			t.Fatal(err)
		}
		if got := before.Diff(after); !slices.Equal(got, test.want) {
			t.Errorf("Diff of %s and %s = %q, want %q", test.before, test.after, got, test.want)
		}
	}
}
