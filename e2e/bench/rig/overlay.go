package rig

import (
	"encoding/binary"
	"net/netip"
)

// overlay is the network of all subjects, subnetLen the length of its subnets.
var overlay = netip.MustParsePrefix("10.0.0.0/8")

const subnetLen = 24

// peersOf returns the numbers of the peers that host self has a route to: the other
// real host first, then the simulated ones.
func peersOf(self, routes int) []int {
	peers := []int{1 - self}
	for n := 2; n <= routes; n++ {
		peers = append(peers, n)
	}
	return peers
}

// peerSubnet returns the subnet of peer number n. The daemons of the real hosts, 0
// and 1, choose other ones.
func peerSubnet(n int) netip.Prefix {
	const size = 1 << (32 - subnetLen)
	return netip.PrefixFrom(nth(overlay.Addr(), (n+1)*size), subnetLen)
}

// firstAddr returns the subnet's first usable address, which its bridge has.
func firstAddr(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Next(), p.Bits())
}

// nth returns the n-th address after a.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+uint32(n))
	return netip.AddrFrom4(b)
}
