package netdev

import (
	"fmt"
	"testing"
)

func TestNames(t *testing.T) {
	for _, test := range []struct {
		name                         string
		tun, vxlan, backend, flannel bool
	}{
		{fmt.Sprintf(TUNPattern, 0), true, false, true, true},
		{fmt.Sprintf(TUNPattern, 12), true, false, true, true},
		{VXLAN(1), false, true, true, true},
		{VXLAN(1<<24 - 1), false, true, true, true},
		{WireGuard, false, false, true, true},
		{"flannel", false, false, false, true},
		{"flannel.", false, false, false, true},
		{"flannel.1x", false, false, false, true},
		{"flannel0.1", false, false, false, true},
		{VXLANIPv6(1), false, true, true, true},
		{WireGuardIPv6, false, false, true, true},
		{"flannel-v6", false, false, false, true},
		{"flannel.ipip", false, false, false, true},
		{"xflannel0", false, false, false, false},
		{"eth0", false, false, false, false},
	} {
		if in, out := Segmenter(test.name); test.tun && (IsBackend(in) || IsBackend(out) || !IsFlannel(in) || !IsFlannel(out)) {
			t.Errorf("Segmenter(%q) is %q, %q", test.name, in, out)
		}
		if got := IsTUN(test.name); got != test.tun {
			t.Errorf("IsTUN(%q) is %v", test.name, got)
		}
		if got := IsVXLAN(test.name); got != test.vxlan {
			t.Errorf("IsVXLAN(%q) is %v", test.name, got)
		}
		if got := IsBackend(test.name); got != test.backend {
			t.Errorf("IsBackend(%q) is %v", test.name, got)
		}
		if got := IsFlannel(test.name); got != test.flannel {
			t.Errorf("IsFlannel(%q) is %v", test.name, got)
		}
	}
}
