package inet

import (
	"net/netip"
	"testing"
)

func TestRaw(t *testing.T) {
	for text, want := range map[string]Raw{
		"10.5.1.2":        Raw4(0x0a050102),
		"fd00:5::1:2":     {0xfd00_0005_0000_0000, 0x1_0002},
		"::":              {},
		"255.255.255.255": {0, 0xffff_ffff_ffff},
	} {
		a := netip.MustParseAddr(text)
		if got := RawOf(a); got != want || got.Addr() != a || got.Is4() != a.Is4() {
			t.Errorf("%s: %x, back %v, IPv4 %v; want %x", text, got, got.Addr(), got.Is4(), want)
		}
	}
}

// A mask keeps of each address what netip keeps.
func TestMaskOf(t *testing.T) {
	for _, text := range []string{"10.5.255.255", "fd00:5:ffff:ffff:ffff:ffff:ffff:ffff"} {
		a := netip.MustParseAddr(text)
		for bits := range a.BitLen() + 1 {
			p := netip.PrefixFrom(a, bits)
			got := RawOf(a).And(MaskOf(p))
			if want := RawOf(p.Masked().Addr()); got != want {
				t.Errorf("%v: %x, want %x", p, got, want)
			}
			if back := got.Or(MaskOf(p).Not().And(RawOf(a))); back != RawOf(a) {
				t.Errorf("%v: host part and network part are %x", p, back)
			}
		}
	}
}
