package backend

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
)

func TestUncountedPeers(t *testing.T) {
	peers := map[netip.Prefix]string{
		netip.MustParsePrefix("10.5.12.0/24"): "192.0.2.12",
		netip.MustParsePrefix("10.5.2.0/24"):  "192.0.2.2",
	}
	got := UncountedPeers(peers, func(dst netip.Prefix, host string) (netip.Addr, error) {
		if dst.Addr().String() == "10.5.2.0" {
			return netip.MustParseAddr(host), nil
		}
		return netip.MustParseAddr(host), errors.New("far away")
	})
	var all string
	for _, p := range got {
		all += fmt.Sprintln(p.Subnet, p.PublicIP, p.Problem, p.Uncounted)
	}
	want := "10.5.2.0/24 192.0.2.2  true\n10.5.12.0/24 192.0.2.12 far away true\n"
	if all != want {
		t.Errorf("got\n%s\nwant\n%s", all, want)
	}
}
