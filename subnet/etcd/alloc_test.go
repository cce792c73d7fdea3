package etcd

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"github.com/coreos/flannel/subnet"
)

// pick returns one of the subnets that an exhaustive search finds free, and each
// of them after enough calls.
func TestPick(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		network := netip.MustParsePrefix("10.5.0.0/20")
		c := &subnet.Config{Network: network, SubnetLen: rapid.IntRange(20, 26).Draw(t, "subnetLen")}
		first, last := blockNumber(network.Addr(), c.SubnetLen), blockNumber(subnet.LastAddr(network), c.SubnetLen)
		lo := rapid.Uint64Range(first, last).Draw(t, "lo")
		hi := rapid.Uint64Range(lo, last).Draw(t, "hi")
		c.SubnetMin, c.SubnetMax = block(lo, c.SubnetLen).Addr(), block(hi, c.SubnetLen).Addr()

		// Leases of every length, inside and outside of the range and of Network.
		taken := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := netip.AddrFrom4([4]byte{10, byte(rapid.IntRange(4, 6).Draw(t, "b")), byte(rapid.IntRange(0, 31).Draw(t, "c")), rapid.Byte().Draw(t, "d")})
			return netip.PrefixFrom(a, rapid.IntRange(19, 30).Draw(t, "bits")).Masked()
		}), 0, 30).Draw(t, "taken")

		free := make(map[netip.Prefix]bool)
		for n := lo; n <= hi; n++ {
			if p := block(n, c.SubnetLen); !overlapsAny(p, taken) {
				free[p] = true
			}
		}
		rnd := rand.New(rand.NewPCG(1, 2))
		seen := make(map[netip.Prefix]bool)
		for range 20 * (len(free) + 1) {
			p, err := pick(c, taken, rnd)
			if len(free) == 0 {
				if !errors.Is(err, subnet.ErrFull) {
					t.Fatalf("picked %v, err %v; nothing is free", p, err)
				}
				return
			}
			if err != nil || !free[p] {
				t.Fatalf("picked %v, err %v; free are %v", p, err, free)
			}
			seen[p] = true
		}
		if len(free) <= 8 && len(seen) != len(free) {
			t.Fatalf("picked only %v of %v", seen, free)
		}
	})
}
