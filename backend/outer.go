package backend

import (
	"errors"
	"fmt"
	"slices"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Values of the option Mode of backends whose datagrams of one family carry packets of
// either: the family of the datagrams. Auto takes the packets' own where both hosts
// have an address, else the other.
const (
	ModeAuto = "auto"
	ModeIPv4 = "ipv4"
	ModeIPv6 = "ipv6"
)

// Inside returns the families of the packets, in order.
func (c Config) Inside() (all []inet.Family) {
	for _, f := range inet.Families {
		if c.Of(f).Inside() {
			all = append(all, f)
		}
	}
	return all
}

// Outer returns the families of this host's datagrams in a mode, in order. The host has
// an address of each, which its lease must name. For auto these are the families that
// containers use; the other serves where one has no address.
func (c Config) Outer(mode string) ([]inet.Family, error) {
	if mode == ModeIPv4 || mode == ModeIPv6 {
		f := inet.IPv4
		if mode == ModeIPv6 {
			f = inet.IPv6
		}
		if !c.Of(f).Outside() {
			return nil, fmt.Errorf("Backend.Mode %s: this host has no %v address for other hosts; add one, or set Mode to %q", mode, f, ModeAuto)
		}
		return []inet.Family{f}, nil
	}
	var outer []inet.Family
	for _, f := range inet.Families {
		side, other := c.Of(f), c.Of(f.Other())
		substitute := other.Inside() && !other.Outside()
		if side.Outside() && (side.Inside() || substitute) {
			outer = append(outer, f)
		}
	}
	if outer == nil {
		return nil, errors.New("this host has no address for other hosts")
	}
	return outer, nil
}

// ChooseOuter returns the family of the datagrams for a peer's packets: the packets'
// own if both hosts have an address, else the other. own are the families of Outer. The
// error is the peer's problem.
func ChooseOuter(inner inet.Family, own []inet.Family, peer subnet.Attrs) (inet.Family, error) {
	for _, f := range []inet.Family{inner, inner.Other()} {
		if slices.Contains(own, f) && peer.Addr(f).IsValid() {
			return f, nil
		}
	}
	return 0, fmt.Errorf("its lease names no address of a family that this host sends in, %v; check addresses and Backend.Mode there", own)
}
