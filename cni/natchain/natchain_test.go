package natchain

import (
	"fmt"
	"slices"
	"testing"

	"github.com/containernetworking/plugins/pkg/utils"
)

// A jump is one of the network's containers if its comment and the name of its chain agree.
func TestParse(t *testing.T) {
	byBridge := utils.FormatChainName("cbr0", "pod")
	byPortmap := utils.MustFormatChainNameWithPrefix("cbr0", "pod", portmapPrefix)
	match := func(comment string) string {
		return fmt.Sprintf(`-A X -s 10.1.17.2/32 -m comment --comment %q -j `, comment)
	}
	of := match(`name: "cbr0" id: "pod"`)
	for rule, want := range map[string]string{
		of + byBridge: byBridge,
		match(`dnat name: "cbr0" id: "pod"`) + byPortmap: byPortmap,

		of + "MASQUERADE": "",
		of + utils.FormatChainName("cbr0", "other"):    "",
		match(`name: "cbr1" id: "pod"`) + byBridge:     "",
		match(`by "cbr0" for "pod"`) + byBridge:        "",
		"-A X -s 10.1.17.2/32 -j " + byBridge:          "",
		`-A X -m comment --comment "unended -j ` + "x": "",
		"-N " + byBridge: "",
	} {
		c, ok := parse(rule, "X", "cbr0")
		if ok != (want != "") || c.name != want {
			t.Errorf("%s\nleads to %q, %v; want %q", rule, c.name, ok, want)
		}
		if ok && (c.Container != "pod" || len(c.jumps) != 1 || c.jumps[0].from != "X" || !slices.Equal(c.jumps[0].rule[:2], []string{"-s", "10.1.17.2/32"})) {
			t.Errorf("%s\nis %+v", rule, c)
		}
	}
}

// Jumps of one family to one chain are of one Chain.
func TestAdd(t *testing.T) {
	all := add(nil, Chain{name: "a", jumps: []jump{{from: "1"}}})
	all = add(all, Chain{name: "b", jumps: []jump{{from: "2"}}})
	all = add(all, Chain{name: "a", jumps: []jump{{from: "3"}}})
	if len(all) != 2 || len(all[0].jumps) != 2 || all[0].jumps[1].from != "3" {
		t.Errorf("chains are %+v", all)
	}
}
