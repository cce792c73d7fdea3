package rig

import (
	"context"
	"fmt"
	"slices"
)

// Link is a variant of the link between the hosts.
type Link struct {
	Name, About string
	features    []string // arguments of ethtool -K, for both ends
}

// Links returns the variants, the usual one first.
func Links() []Link {
	software := []string{
		"tx", "off", "sg", "off", "tso", "off", "gso", "off",
		"tx-udp-segmentation", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off",
	}
	return []Link{
		{Name: "on", About: "all offloads of veth on: super-packets cross it whole"},
		{Name: "off", About: "offloads off: MTU-size frames, checksums in software, GRO at the receiver", features: slices.Concat(software, []string{"gro", "on"})},
		{Name: "bare", About: "as off, but no GRO at the receiver: veth has it off by default", features: slices.Concat(software, []string{"gro", "off"})},
		{Name: "csum", About: "as a plain NIC: MTU-size frames, checksums in hardware, GRO at the receiver", features: []string{
			"tso", "off",
			"tx-udp-segmentation", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off",
			"gro", "on",
		}},
	}
}

// setFeatures sets the features of the pair's link at both of its ends.
func (p *Pair) setFeatures(ctx context.Context) error {
	l := p.setting.Link
	if len(l.features) == 0 {
		return nil
	}
	for _, h := range p.hosts {
		args := append([]string{"-K", linkName}, l.features...)
		if out, err := h.Command(ctx, "ethtool", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("make link %q of %s: ethtool: %w: %s", l.Name, h.Name(), err, out)
		}
	}
	return nil
}
