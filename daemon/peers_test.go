package daemon

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

func TestPeersAnnounceJoiningAndLeaving(t *testing.T) {
	o := new(observer)
	p := newPeers(o)
	a, b := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	for _, step := range []struct {
		event        subnet.EventType
		peer         netip.Prefix
		joined, left []netip.Prefix
	}{
		{subnet.Added, a, []netip.Prefix{a}, nil},
		{subnet.Added, a, nil, nil}, // other attributes
		{subnet.Added, b, []netip.Prefix{b}, nil},
		{subnet.Removed, a, nil, []netip.Prefix{a}},
		{subnet.Removed, a, nil, nil}, // was no peer
	} {
		version := p.currentVersion()
		p.apply([]subnet.Event{{Type: step.event, Lease: &subnet.Lease{Subnet: step.peer}}})
		joined, left := o.joined.drain()
		if !slices.Equal(joined, step.joined) || !slices.Equal(left, step.left) {
			t.Errorf("%v %v: joined %v, left %v", step.event, step.peer, joined, left)
		}
		if p.currentVersion() == version {
			t.Errorf("%v %v: the version stays", step.event, step.peer)
		}
	}
	if got := p.subnets(inet.IPv4); !slices.Equal(got, []netip.Prefix{b}) || p.has(a) || !p.has(b) {
		t.Errorf("the peers are %v", got)
	}
	if got := p.leases(); len(got) != 1 || got[0].Subnet != b {
		t.Errorf("the leases are %v", got)
	}
}
