package rig

import (
	"encoding/binary"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
)

// overlays are the networks of all subjects, by family.
var overlays = [...]netip.Prefix{
	inet.IPv4: netip.MustParsePrefix("10.0.0.0/8"),
	inet.IPv6: netip.MustParsePrefix("fd00:10::/48"),
}

// subnetBits is the length of a subnet's number, in bits. It follows the overlay's
// prefix, which is of whole bytes.
const subnetBits = 16

// subnetLen returns the prefix length of the subnets of a family.
func subnetLen(f inet.Family) int { return overlays[f].Bits() + subnetBits }

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
func peerSubnet(f inet.Family, n int) netip.Prefix {
	b := overlays[f].Addr().AsSlice()
	binary.BigEndian.PutUint16(b[overlays[f].Bits()/8:], uint16(n+1))
	return netip.PrefixFrom(addrOf(b), subnetLen(f))
}

// firstAddr returns the subnet's first usable address, which its bridge has.
func firstAddr(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr().Next(), p.Bits())
}

// host returns the prefix of a single address.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// nth returns the n-th address after a, which has the same bits but the last 32.
func nth(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	low := b[len(b)-4:]
	binary.BigEndian.PutUint32(low, binary.BigEndian.Uint32(low)+uint32(n))
	return addrOf(b)
}

// addrOf returns the address of the bytes of AsSlice.
func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b) // the length is right
	return a
}
