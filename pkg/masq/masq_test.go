package masq

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"github.com/coreos/flannel/pkg/netnstest"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func sample() Rules {
	return Rules{Network: prefix("10.5.0.0/16"), Subnet: prefix("10.5.1.0/24")}
}

const golden = `table ip flannel-10.5.0.0-16 {
	chain forward {
		type filter hook forward priority filter - 1; policy accept;
		ip saddr 10.5.0.0/16 counter packets 0 bytes 0 accept
		ip daddr 10.5.0.0/16 counter packets 0 bytes 0 accept
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip saddr != 10.5.0.0/16 ip daddr 10.5.1.0/24 return
		ip saddr 10.5.0.0/16 ip daddr != 10.5.0.0/16 ip daddr != 224.0.0.0/4 counter packets 0 bytes 0 masquerade fully-random
		ip saddr != 10.5.0.0/16 ip daddr 10.5.0.0/16 counter packets 0 bytes 0 masquerade fully-random
	}
}
`

// goldenOther is the table of a second daemon.
var goldenOther = strings.NewReplacer("10.5.0.0-16", "10.6.0.0-17", "10.5.0.0/16", "10.6.0.0/17", "10.5.1.0/24", "10.6.3.0/24").Replace(golden)

const golden6 = `table ip6 flannel-fd00__-48 {
	chain forward {
		type filter hook forward priority filter - 1; policy accept;
		ip6 saddr fd00::/48 counter packets 0 bytes 0 accept
		ip6 daddr fd00::/48 counter packets 0 bytes 0 accept
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 == 0x00004000 return
		ip6 saddr != fd00::/48 ip6 daddr fd00:0:0:7::/64 return
		ip6 saddr fd00::/48 ip6 daddr != fd00::/48 ip6 daddr != ff00::/8 counter packets 0 bytes 0 masquerade fully-random
		ip6 saddr != fd00::/48 ip6 daddr fd00::/48 counter packets 0 bytes 0 masquerade fully-random
	}
}
`

// A table without forwarding and random ports lacks these alone.
func TestReducedRules(t *testing.T) {
	h := newNamespace(t)
	r := sample()
	r.NoForward, r.OrderedPorts = true, true
	check(t, h.Do(func() error { return Apply(r) }))
	before, rest, _ := strings.Cut(golden, "	chain forward {")
	_, after, _ := strings.Cut(rest, "\n\n")
	want := before + strings.ReplaceAll(after, " fully-random", "")
	if have := nft(t, h, "list", "table", "ip", "flannel-10.5.0.0-16"); have != want {
		t.Errorf("table is\n%s\nwant\n%s", have, want)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newNamespace(t *testing.T) *netnstest.Host {
	t.Helper()
	netnstest.Require(t)
	return netnstest.New(t).Namespace("host")
}

func nft(t *testing.T, h *netnstest.Host, args ...string) string {
	t.Helper()
	out, err := h.Command(context.WithoutCancel(t.Context()), "nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func apply(t *testing.T, h *netnstest.Host, r Rules) {
	t.Helper()
	check(t, h.Do(func() error { return Apply(r) }))
}

func TestApplyAndRemove(t *testing.T) {
	h := newNamespace(t)
	const foreign = "table inet foreign {\n\tchain c {\n\t}\n}\n"
	nft(t, h, "add table inet foreign; add chain inet foreign c")
	apply(t, h, sample())
	apply(t, h, sample()) // changes nothing
	if got := nft(t, h, "list", "ruleset"); got != foreign+golden {
		t.Errorf("nft lists\n%s\nwant\n%s", got, foreign+golden)
	}

	// A second daemon, with another network.
	other := Rules{Network: prefix("10.6.0.0/17"), Subnet: prefix("10.6.3.0/24")}
	apply(t, h, other)
	if got := nft(t, h, "list", "ruleset"); got != foreign+golden+goldenOther {
		t.Errorf("with a second daemon, nft lists\n%s", got)
	}
	for range 2 { // the second finds nothing to do
		check(t, h.Do(func() error { return Remove(sample().Network) }))
	}
	if got := nft(t, h, "list", "ruleset"); got != foreign+goldenOther {
		t.Errorf("after Remove, nft lists\n%s", got)
	}
}

func TestApplyIPv6(t *testing.T) {
	h := newNamespace(t)
	apply(t, h, Rules{Network: prefix("fd00::/48"), Subnet: prefix("fd00:0:0:7::/64")})
	if got := nft(t, h, "list", "table", "ip6", "flannel-fd00__-48"); got != golden6 {
		t.Errorf("nft lists\n%s\nwant\n%s", got, golden6)
	}
}

func TestApplyRefuses(t *testing.T) {
	for _, r := range []Rules{
		{},
		{Network: prefix("10.5.0.0/16")},
		{Network: prefix("10.5.0.0/16"), Subnet: prefix("10.6.1.0/24")},
		{Network: prefix("10.5.0.0/16"), Subnet: prefix("10.5.0.0/15")},
		{Network: prefix("10.5.0.0/16"), Subnet: prefix("fd00::/64")},
	} {
		if err := Apply(r); err == nil {
			t.Errorf("Apply(%+v) gave no error", r)
		}
	}
}
