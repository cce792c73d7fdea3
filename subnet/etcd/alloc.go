package etcd

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// maxBlocks bounds the subnets of a range that are considered: an IPv6 network can
// have more than a uint64 counts.
const maxBlocks = 1 << 62

// pick chooses one of the subnets that r hands out and that overlap none of
// taken, each with the same probability. Hosts that start together with the same
// list seldom choose the same one. Errors: subnet.ErrFull.
func pick(r subnet.Range, taken []netip.Prefix, rnd *rand.Rand) (netip.Prefix, error) {
	free := blockCount(r)
	used := takenBlocks(r, taken)
	for _, u := range used {
		free -= u.end - u.start
	}
	if free == 0 {
		return netip.Prefix{}, subnet.ErrFull
	}
	// Find the k-th free block: skip each used range that begins at or before it.
	k := rnd.Uint64N(free)
	for _, u := range used {
		if u.start > k {
			break
		}
		k += u.end - u.start
	}
	return block(r, k), nil
}

// overlapsAny reports whether p overlaps one of taken.
func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	return slices.ContainsFunc(taken, p.Overlaps)
}

// blockCount returns how many subnets r hands out, maxBlocks at most.
func blockCount(r subnet.Range) uint64 { return min(blockNumber(r, r.SubnetMax)+1, maxBlocks) }

// blockRange is the blocks start ≤ i < end, counted from SubnetMin.
type blockRange struct{ start, end uint64 }

// takenBlocks returns the blocks from SubnetMin to SubnetMax that taken covers,
// as sorted, disjoint ranges. A larger subnet covers many blocks, a smaller one
// the block that contains it.
func takenBlocks(r subnet.Range, taken []netip.Prefix) []blockRange {
	first, end := r.SubnetMin, blockCount(r)
	var ranges []blockRange
	for _, p := range taken {
		if !p.IsValid() || inet.Of(p.Addr()) != inet.Of(first) || subnet.LastAddr(p).Less(first) {
			continue
		}
		u := blockRange{end: min(blockNumber(r, subnet.LastAddr(p))+1, end)}
		if first.Less(p.Addr()) {
			u.start = blockNumber(r, p.Addr())
		}
		if u.start < u.end {
			ranges = append(ranges, u)
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

// blockNumber returns the number of the block that contains a, which is not before
// SubnetMin, counted from there; maxBlocks at most.
func blockNumber(r subnet.Range, a netip.Addr) uint64 {
	at, first := inet.RawOf(a), inet.RawOf(r.SubnetMin)
	lo, borrow := bits.Sub64(at.Lo, first.Lo, 0)
	hi, _ := bits.Sub64(at.Hi, first.Hi, borrow)
	hi, lo = shift(hi, lo, -blockBits(r))
	if hi > 0 {
		return maxBlocks
	}
	return min(lo, maxBlocks)
}

// block is the inverse of blockNumber.
func block(r subnet.Range, n uint64) netip.Prefix {
	hi, lo := shift(0, n, blockBits(r))
	first := inet.RawOf(r.SubnetMin)
	lo, carry := bits.Add64(lo, first.Lo, 0)
	hi, _ = bits.Add64(hi, first.Hi, carry)
	return netip.PrefixFrom(inet.Raw{Hi: hi, Lo: lo}.Addr(), r.SubnetLen)
}

// blockBits returns the number of bits of an address within a block.
func blockBits(r subnet.Range) int { return r.SubnetMin.BitLen() - r.SubnetLen }

// shift shifts a number of 128 bits to the left by n, to the right if n < 0.
func shift(hi, lo uint64, n int) (uint64, uint64) {
	switch {
	case n >= 64:
		return lo << (n - 64), 0
	case n >= 0:
		return hi<<n | lo>>(64-n), lo << n
	case n > -64:
		return hi >> -n, lo>>-n | hi<<(64+n)
	}
	return 0, hi >> (-n - 64)
}
