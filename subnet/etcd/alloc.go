package etcd

import (
	"cmp"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/subnet"
)

// pick chooses one of the subnets that c hands out and that overlap none of
// taken, each with the same probability. Hosts that start together with the same
// list seldom choose the same one. Errors: subnet.ErrFull.
func pick(c *subnet.Config, taken []netip.Prefix, rnd *rand.Rand) (netip.Prefix, error) {
	free := blockCount(c)
	used := takenBlocks(c, taken)
	for _, r := range used {
		free -= r.end - r.start
	}
	if free == 0 {
		return netip.Prefix{}, subnet.ErrFull
	}
	// Find the k-th free block: skip each used range that begins at or before it.
	k := rnd.Uint64N(free)
	for _, r := range used {
		if r.start > k {
			break
		}
		k += r.end - r.start
	}
	return block(blockNumber(c.SubnetMin, c.SubnetLen)+k, c.SubnetLen), nil
}

// overlapsAny reports whether p overlaps one of taken.
func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	return slices.ContainsFunc(taken, p.Overlaps)
}

// blockCount returns how many subnets c hands out.
func blockCount(c *subnet.Config) uint64 {
	return blockNumber(c.SubnetMax, c.SubnetLen) - blockNumber(c.SubnetMin, c.SubnetLen) + 1
}

// blockRange is the blocks start ≤ i < end, counted from SubnetMin.
type blockRange struct{ start, end uint64 }

// takenBlocks returns the blocks from SubnetMin to SubnetMax that taken covers,
// as sorted, disjoint ranges. A larger subnet covers many blocks, a smaller one
// the block that contains it.
func takenBlocks(c *subnet.Config, taken []netip.Prefix) []blockRange {
	lo := blockNumber(c.SubnetMin, c.SubnetLen)
	hi := blockNumber(c.SubnetMax, c.SubnetLen) + 1
	var ranges []blockRange
	for _, p := range taken {
		start := max(blockNumber(p.Addr(), c.SubnetLen), lo)
		end := min(blockNumber(subnet.LastAddr(p), c.SubnetLen)+1, hi)
		if start < end {
			ranges = append(ranges, blockRange{start - lo, end - lo})
		}
	}
	slices.SortFunc(ranges, func(a, b blockRange) int { return cmp.Compare(a.start, b.start) })
	merged := ranges[:0]
	for _, r := range ranges {
		if last := len(merged) - 1; last >= 0 && r.start <= merged[last].end {
			merged[last].end = max(merged[last].end, r.end)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// blockNumber returns the number of the block that contains a, an IPv4 address.
// Blocks have the given prefix length and are counted from address zero.
func blockNumber(a netip.Addr, bits int) uint64 {
	b := a.As4()
	return uint64(binary.BigEndian.Uint32(b[:])) >> (32 - bits)
}

// block is the inverse of blockNumber.
func block(n uint64, bits int) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n<<(32-bits)))
	return netip.PrefixFrom(netip.AddrFrom4(b), bits)
}
