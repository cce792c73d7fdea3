package bpf

import (
	"fmt"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
)

// prefixLengths counts subnets by family and prefix length.
type prefixLengths [2][129]int

// longestFirst returns the lengths of a family's subnets.
func (l *prefixLengths) longestFirst(f inet.Family) (lengths []int) {
	for length, subnets := range slices.Backward(l[f][:]) {
		if subnets > 0 {
			lengths = append(lengths, length)
		}
	}
	return lengths
}

// putLengths writes the masks in use, longest first.
func (p *Path) putLengths(used prefixLengths) error {
	var m flannelMasks
	for i, length := range used.longestFirst(inet.IPv4) {
		m.Mask[i] = inMask(length)
	}
	if p.incomplete {
		m.Incomplete = 1
	}
	if err := p.Lengths.Put(uint32(0), m); err != nil {
		return fmt.Errorf("write lengths of subnets: %w", err)
	}
	var m6 flannelMasks6
	lengths := used.longestFirst(inet.IPv6)
	if len(lengths) > MaxLengths6 {
		return fmt.Errorf("IPv6 subnets have %d lengths, %v; the programs take %d", len(lengths), lengths, MaxLengths6)
	}
	for i, length := range lengths {
		m6.Of[i].Mask, m6.Of[i].Length = in6Mask(length), uint32(length)
	}
	if err := p.Lengths6.Put(uint32(0), m6); err != nil {
		return fmt.Errorf("write lengths of IPv6 subnets: %w", err)
	}
	return nil
}
