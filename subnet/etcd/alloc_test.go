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
	for _, network := range []netip.Prefix{netip.MustParsePrefix("10.5.0.0/20"), netip.MustParsePrefix("fd00:5:0:fff0::/60")} {
		t.Run(network.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkPick(t, network) })
		})
	}
}

func checkPick(t *rapid.T, network netip.Prefix) {
	bits := network.Bits()
	r := subnet.Range{Network: network, SubnetLen: rapid.IntRange(bits, bits+6).Draw(t, "subnetLen"), SubnetMin: network.Addr()}
	last := blockNumber(r, subnet.LastAddr(network))
	lo := rapid.Uint64Range(0, last).Draw(t, "lo")
	hi := rapid.Uint64Range(lo, last).Draw(t, "hi")
	r.SubnetMin, r.SubnetMax = block(r, lo).Addr(), block(r, hi).Addr()

	// Leases of every length, inside and outside of the range and of Network.
	taken := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
		b := network.Addr().AsSlice()
		b[bits/8-1] = byte(int(b[bits/8-1]) + rapid.IntRange(-1, 1).Draw(t, "network"))
		b[bits/8] += byte(rapid.IntRange(0, 31).Draw(t, "subnet"))
		b[bits/8+1] = rapid.Byte().Draw(t, "part")
		a, _ := netip.AddrFromSlice(b)
		return netip.PrefixFrom(a, rapid.IntRange(bits-1, bits+10).Draw(t, "bits")).Masked()
	}), 0, 30).Draw(t, "taken")
	taken = append(taken, netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32"))

	free := make(map[netip.Prefix]bool)
	for n := range hi - lo + 1 {
		if p := block(r, n); !overlapsAny(p, taken) {
			free[p] = true
		}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := make(map[netip.Prefix]bool)
	for range 20 * (len(free) + 1) {
		p, err := pick(r, taken, rnd)
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
}

// An IPv6 network can have more subnets than a uint64 counts.
func TestPickFromManySubnets(t *testing.T) {
	c, err := subnet.ParseConfig([]byte(`{"IPv6Network": "fd00::/8", "IPv6SubnetLen": 126}`))
	if err != nil {
		t.Fatal(err)
	}
	if n := blockCount(c.IPv6); n != maxBlocks {
		t.Errorf("%d subnets, want %d", n, uint64(maxBlocks))
	}
	taken := []netip.Prefix{netip.MustParsePrefix("fd00::/64"), netip.MustParsePrefix("fdff::/16")}
	for range 1000 {
		p, err := pick(c.IPv6, taken, newRand())
		if err != nil || !c.IPv6.Allows(p) || overlapsAny(p, taken) {
			t.Fatalf("picked %v, %v", p, err)
		}
	}
}

// A lost race occupies the subnets of its key once, however many there were before.
func TestOccupy(t *testing.T) {
	var a acquisition
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), IPv6Subnet: netip.MustParsePrefix("fd00:5:0:1::/64")}
	for range 3 {
		a.occupy(l)
	}
	if len(a.occupied) != 6 {
		t.Errorf("three keys of two subnets occupy %v", a.occupied)
	}
}
