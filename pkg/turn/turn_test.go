package turn

import (
	"net/netip"
	"slices"
	"testing"
)

func TestNotes(t *testing.T) {
	a, b := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	all := func(who ...netip.Prefix) []netip.Prefix { return who }
	var n Notes
	for _, step := range []struct {
		what            string
		do              func()
		wantYes, wantNo []netip.Prefix
	}{
		{"nothing", func() {}, nil, nil},
		{"one each", func() { n.Note(a, true); n.Note(b, false) }, all(a), all(b)},
		{"told already", func() {}, nil, nil},
		{"the same again", func() { n.Note(a, true); n.Note(a, true) }, all(a), nil},
		{"there and back", func() { n.Note(a, true); n.Note(a, false); n.Note(b, false); n.Note(b, true) }, nil, nil},
		{"there, back, there", func() { n.Note(a, false); n.Note(a, true); n.Note(a, false) }, nil, all(a)},
		{"gone", func() {
			n.Note(a, true)
			n.Note(b, true)
			n.Forget(func(who netip.Prefix) bool { return who == a })
		}, all(b), nil},
	} {
		step.do()
		if yes, no := n.Take(); !slices.Equal(yes, step.wantYes) || !slices.Equal(no, step.wantNo) {
			t.Errorf("%s: %v and %v, want %v and %v", step.what, yes, no, step.wantYes, step.wantNo)
		}
	}
}
