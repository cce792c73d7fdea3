package kube

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// dualPeer is peer(n) with an IPv6 part.
func dualPeer(n byte) subnet.Lease {
	l := peer(n)
	l.IPv6Subnet = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 3: 5, 7: n}), 64)
	l.Attrs.PublicIPv6 = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 2: 0xd, 3: 0xb8, 15: n})
	return l
}

// A Node has the podCIDRs of both families before its host carries both: a family that
// the host has not published is no part of its lease.
func TestLeaseOfPublishedFamilies(t *testing.T) {
	v4 := map[string]string{suffixPublicIP[inet.IPv4]: "192.0.2.1", suffixData[inet.IPv4]: "null"}
	v6 := map[string]string{suffixPublicIP[inet.IPv6]: "2001:db8::1", suffixData[inet.IPv6]: "null"}
	insideIPv4 := map[string]string{suffixData[inet.IPv6]: "null"}
	for name, test := range map[string]struct {
		published []map[string]string
		key       string
	}{
		"IPv4":             {[]map[string]string{v4}, "10.5.3.0-24"},
		"IPv6":             {[]map[string]string{v6}, "0.0.0.0-0&fd00:5:0:3::-64"},
		"both":             {[]map[string]string{v4, v6}, "10.5.3.0-24&fd00:5:0:3::-64"},
		"IPv6 inside IPv4": {[]map[string]string{v4, insideIPv4}, "10.5.3.0-24&fd00:5:0:3::-64"},
	} {
		t.Run(name, func(t *testing.T) {
			var n node
			n.Metadata.ResourceVersion, n.Spec.PodCIDRs = "7", []string{"10.5.3.0/24", "fd00:5:0:3::/64"}
			n.Metadata.Annotations = map[string]string{names.prefix + suffixManaged: "true"}
			for _, annotations := range test.published {
				for suffix, value := range annotations {
					n.Metadata.Annotations[names.prefix+suffix] = value
				}
			}
			l, ok, err := names.lease(&n)
			if !ok || err != nil || l.Key() != test.key {
				t.Fatalf("lease = %v, %v, %v; want %s", l.Key(), ok, err, test.key)
			}
			have := published(t, l)
			delete(have, names.prefix+suffixType)
			if !maps.Equal(have, n.Metadata.Annotations) {
				t.Errorf("written again: %v, was %v", have, n.Metadata.Annotations)
			}
		})
	}
}

// While IPv6 is rolled out, a peer's IPv6 subnet comes when the peer publishes it, and
// its IPv4 subnet stays. No lease is bad meanwhile.
func TestPeerPublishesIPv6Later(t *testing.T) {
	w := watchNetwork(t, `{"Network":"10.5.0.0/16","IPv6Network":"fd00:5::/48","Backend":{"Type":"vxlan"}}`, "10.5.200.0/24", "fd00:5:0:c8::/64")
	put := func(l subnet.Lease) {
		t.Helper()
		podCIDRs := dualPeer(1)
		w.server.PutNode(nodeOf(l), published(t, l), podCIDRs.Subnet.String(), podCIDRs.IPv6Subnet.String())
	}
	onlyIPv4 := peer(1)
	for range 2 {
		put(onlyIPv4)
		w.have("IPv4", "10.5.1.0/24")
		put(dualPeer(1))
		w.have("both families", "10.5.1.0/24", "fd00:5:0:1::/64")
	}
	put(onlyIPv4)
	w.have("IPv4 again", "10.5.1.0/24")
	w.server.DeleteNode(nodeOf(onlyIPv4))
	w.have("no peer")
	if n := w.store.BadCount() + w.manager.BadCount(); n != 0 {
		t.Errorf("%d bad leases", n)
	}
}
