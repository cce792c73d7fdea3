package kube

import (
	"maps"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestParseAnnotations(t *testing.T) {
	for prefix, want := range map[string]string{
		"flannel.alpha.coreos.com":  "flannel.alpha.coreos.com/",
		"flannel.alpha.coreos.com/": "flannel.alpha.coreos.com/",
		"example.com/net":           "example.com/net-",
		"example.com/net-":          "example.com/net-",
		"nodot":                     "", "a.b/c/d": "", "": "", "UPPER.com": "", "a.b/ c": "", ".com/": "",
	} {
		a, err := ParseAnnotations(prefix)
		if (err == nil) != (want != "") || err == nil && a.prefix != want {
			t.Errorf("ParseAnnotations(%q) = %q, %v; want %q", prefix, a.prefix, err, want)
		}
	}
}

// The bytes of other programs' annotations, and what becomes of damaged ones.
func TestLeaseOfNode(t *testing.T) {
	good := map[string]string{"kube-subnet-manager": "true", "backend-type": "vxlan", "public-ip": "192.0.2.1",
		"backend-data": `{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}`}
	with := func(key, value string) map[string]string {
		m := maps.Clone(good)
		m[key] = value
		return m
	}
	for name, test := range map[string]struct {
		annotations map[string]string
		podCIDRs    string
		ok          bool
		fault       string
	}{
		"good":                   {good, "10.5.3.0/24", true, ""},
		"another field":          {with("backend-data", `{"VtepMAC":"c6:d2:32:6f:8f:44","New":1}`), "10.5.3.0/24", true, ""},
		"no data":                {with("backend-data", "null"), "10.5.3.0/24", true, ""},
		"damaged extras":         {with("extras", "{"), "10.5.3.0/24", true, ""},
		"IPv6 first":             {good, "fd00:5:0:3::/64,10.5.3.0/24", true, ""},
		"not managed":            {with("kube-subnet-manager", "True"), "10.5.3.0/24", false, ""},
		"none":                   {nil, "10.5.3.0/24", false, ""},
		"neither":                {nil, "", false, ""},
		"no podCIDR":             {good, "", false, "has no podCIDR"},
		"data is no JSON":        {with("backend-data", "{"), "10.5.3.0/24", false, "annotations"},
		"address is no address":  {with("public-ip", "x"), "10.5.3.0/24", false, "annotations"},
		"no address":             {with("public-ip", ""), "10.5.3.0/24", false, "annotations"},
		"podCIDR is no subnet":   {good, "10.5.3.0/33", false, "podCIDR"},
		"two podCIDRs of family": {good, "10.5.3.0/24,10.5.4.0/24", false, "two podCIDRs"},
	} {
		t.Run(name, func(t *testing.T) {
			var n node
			n.Metadata.Name, n.Metadata.ResourceVersion = "n1", "7"
			n.Metadata.Annotations = map[string]string{}
			for k, v := range test.annotations {
				n.Metadata.Annotations["flannel.alpha.coreos.com/"+k] = v
			}
			if test.podCIDRs != "" {
				n.Spec.PodCIDRs = strings.Split(test.podCIDRs, ",")
			}
			l, ok, err := names.lease(&n)
			if ok != test.ok || (err != nil) != (test.fault != "") || err != nil && !strings.Contains(err.Error(), test.fault) {
				t.Fatalf("lease = %v, %v, %v", l, ok, err)
			}
			if ok && (l.Subnet != netip.MustParsePrefix("10.5.3.0/24") || l.Attrs.PublicIP.String() != "192.0.2.1" || l.Attrs.Hostname != "n1" || l.Rev != 7) {
				t.Errorf("lease = %+v", l)
			}
		})
	}
}

func FuzzLeaseOfNode(f *testing.F) {
	f.Add("10.5.3.0/24", "vxlan", `{"VNI":1}`, "192.0.2.1", `{"NodeID":"x"}`)
	f.Fuzz(func(t *testing.T, podCIDR, kind, data, ip, extras string) {
		var n node
		n.Metadata.ResourceVersion, n.Spec.PodCIDR = "7", podCIDR
		n.Metadata.Annotations = map[string]string{}
		for suffix, v := range map[string]string{suffixManaged: "true", suffixType: kind, suffixData[inet.IPv4]: data, suffixPublicIP[inet.IPv4]: ip, suffixExtras: extras} {
			n.Metadata.Annotations[names.prefix+suffix] = v
		}
		l, ok, err := names.lease(&n)
		if ok != (err == nil) {
			t.Fatalf("lease = %v, %v, %v", l, ok, err)
		}
		if !ok {
			return
		}
		again := n
		again.Metadata.Annotations = published(t, l)
		if m, ok, err := names.lease(&again); !ok || !m.Attrs.Equal(l.Attrs) || m.Key() != l.Key() {
			t.Errorf("written again: %+v, %v, %v; was %+v", m, ok, err, l)
		}
	})
}

func TestAddressOfAdministrator(t *testing.T) {
	for text, want := range map[string]string{"": "invalid IP", "198.51.100.7": "198.51.100.7", "x": "error", "224.0.0.1": "error"} {
		var n node
		n.Metadata.Annotations = map[string]string{names.prefix + suffixNodeIP[inet.IPv4]: text}
		ip, err := names.address(&n, inet.IPv4, suffixNodeIP)
		have := ip.String()
		if err != nil {
			have = "error"
		}
		if have != want {
			t.Errorf("address of %q = %v, %v; want %s", text, ip, err, want)
		}
	}
}

var _ subnet.Source = (*Store)(nil)
var _ subnet.Holder = (*Holder)(nil)
