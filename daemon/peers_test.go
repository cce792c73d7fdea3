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

// A host has moved its IPv4 subnet to another lease. Its IPv6 subnet, which is still
// known, does not bring the former lease back.
func TestPeersKeepOneLeaseOfASubnet(t *testing.T) {
	p := newPeers(new(observer))
	ipv4, ipv6 := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("fd00:5:0:1::/64")
	before, now := &subnet.Lease{Subnet: ipv4, IPv6Subnet: ipv6}, &subnet.Lease{Subnet: ipv4}
	p.apply([]subnet.Event{{Type: subnet.Added, Lease: before}, {Type: subnet.Added, Lease: before, Family: inet.IPv6}})
	if got := p.leases(); len(got) != 1 || got[0] != before {
		t.Errorf("the leases are %v", got)
	}
	p.apply([]subnet.Event{{Type: subnet.Added, Lease: now}})
	if got := p.leases(); len(got) != 2 || got[0].Key()+" "+got[1].Key() != "0.0.0.0-0&fd00:5:0:1::-64 10.5.1.0-24" {
		t.Errorf("the leases are %v", got)
	}
}
