package backend

import (
	"errors"
	"fmt"
	"net/netip"
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
		if !c.Of(f).Sends() {
			return nil, fmt.Errorf("Backend.Mode %s: %w; add one, or set Mode to %q", mode, NoAddress(f), ModeAuto)
		}
		return []inet.Family{f}, nil
	}
	var outer []inet.Family
	for _, f := range inet.Families {
		side, other := c.Of(f), c.Of(f.Other())
		substitute := other.Inside() && !other.Sends()
		if side.Sends() && (side.Inside() || substitute) {
			outer = append(outer, f)
		}
	}
	if outer == nil {
		return nil, errors.New("this host has no address for other hosts (link-local ones of IPv6 do not count)")
	}
	return outer, nil
}

// Sends reports whether a socket that is bound to no interface can send the family's
// datagrams to other hosts.
func (s Side) Sends() bool {
	return s.Outside() && !needsInterface(s.Uplink.Addr) && !needsInterface(s.PublicIP)
}

// needsInterface reports whether an address means another host on each link (RFC 4007,
// section 6).
func needsInterface(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }

// NoAddress is the error for a host that does not send in a family.
func NoAddress(f inet.Family) error {
	except := ""
	if f == inet.IPv6 {
		except = " (link-local ones do not count)"
	}
	return fmt.Errorf("this host has no %v address for other hosts%s", f, except)
}

// Reaches reports whether a socket that is bound to no interface can send to the peer's
// address of a family.
func Reaches(peer subnet.Attrs, f inet.Family) bool {
	a := peer.Addr(f)
	return a.IsValid() && !needsInterface(a)
}

// Unreached is the problem of a peer that sender Reaches in none of its own families.
func Unreached(sender string, own []inet.Family, peer subnet.Attrs) error {
	for _, f := range own {
		if a := peer.Addr(f); a.IsValid() {
			return fmt.Errorf("its lease names the link-local address %v, to which %s cannot send; choose another one there by -iface or -public-ipv6", a, sender)
		}
	}
	return fmt.Errorf("its lease names no address of a family that %s sends in, %v; check addresses and Backend.Mode there", sender, own)
}

// ChooseOuter returns the family of the datagrams for a peer's packets: the packets'
// own if both hosts have an address, else the other. own are the families of Outer. The
// error is the peer's problem.
func ChooseOuter(inner inet.Family, own []inet.Family, peer subnet.Attrs) (inet.Family, error) {
	for _, f := range []inet.Family{inner, inner.Other()} {
		if slices.Contains(own, f) && Reaches(peer, f) {
			return f, nil
		}
	}
	return 0, Unreached("this host", own, peer)
}
