// Package subnetfile writes and reads subnet.env, the addresses and the MTU that
// the host's container engine has to use:
//
//	FLANNEL_NETWORK=10.5.0.0/16
//	FLANNEL_SUBNET=10.5.72.1/24
//	FLANNEL_IPV6_NETWORK=fd00:5::/48
//	FLANNEL_IPV6_SUBNET=fd00:5:0:48::1/64
//	FLANNEL_MTU=1472
//	FLANNEL_IPMASQ=false
//
// The first two lines are absent without IPv4, the next two without IPv6.
//
// sh can source the file, and a systemd unit can name it as EnvironmentFile. The
// daemon reads it at start, to ask for the same subnet.
package subnetfile

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The keys, in the order in which they are written.
const (
	keyNetwork     = "FLANNEL_NETWORK"
	keySubnet      = "FLANNEL_SUBNET"
	keyIPv6Network = "FLANNEL_IPV6_NETWORK"
	keyIPv6Subnet  = "FLANNEL_IPV6_SUBNET"
	keyMTU         = "FLANNEL_MTU"
	keyIPMasq      = "FLANNEL_IPMASQ"
)

// maxSize is the largest file that Read accepts, in bytes.
const maxSize = 1 << 16

// Env is the content of the file.
type Env struct {
	// Network is the overlay's whole IPv4 range. Read leaves it invalid for a file of
	// an early flannel that does not have it.
	Network netip.Prefix
	// Subnet is this host's, e.g. 10.5.72.0/24, invalid if it has no IPv4 subnet. The
	// file has its first usable address, 10.5.72.1/24, which is meant for a bridge.
	Subnet netip.Prefix
	// IPv6Network and IPv6Subnet are those of IPv6, invalid without.
	IPv6Network, IPv6Subnet netip.Prefix
	// MTU is the largest packet, in bytes, that a container may send; 0 if the file
	// does not have it.
	MTU int
	// IPMasq is true if flannel masquerades packets that leave the overlay. The
	// container engine must not do so then.
	IPMasq bool
}

// text is what the file has to hold.
func (e Env) text() string {
	var text strings.Builder
	if e.Subnet.IsValid() {
		fmt.Fprintf(&text, "%s=%v\n%s=%v\n", keyNetwork, e.Network.Masked(), keySubnet, FirstUsable(e.Subnet))
	}
	if e.IPv6Subnet.IsValid() {
		fmt.Fprintf(&text, "%s=%v\n%s=%v\n", keyIPv6Network, e.IPv6Network.Masked(), keyIPv6Subnet, FirstUsable(e.IPv6Subnet))
	}
	fmt.Fprintf(&text, "%s=%d\n%s=%t\n", keyMTU, e.MTU, keyIPMasq, e.IPMasq)
	return text.String()
}

// check returns an error if e cannot be written: a subnet without its network, or no
// subnet.
func (e Env) check() error {
	switch {
	case !e.Subnet.IsValid() && !e.IPv6Subnet.IsValid():
		return errors.New("there is no subnet")
	case e.Subnet.IsValid() != e.Network.IsValid():
		return fmt.Errorf("network %v or subnet %v is not valid", e.Network, e.Subnet)
	case e.IPv6Subnet.IsValid() != e.IPv6Network.IsValid():
		return fmt.Errorf("network %v or subnet %v is not valid", e.IPv6Network, e.IPv6Subnet)
	}
	return nil
}

// FirstUsable returns the first host address of p, with p's length.
func FirstUsable(p netip.Prefix) netip.Prefix {
	addr := p.Masked().Addr()
	if !p.IsSingleIP() {
		addr = addr.Next()
	}
	return netip.PrefixFrom(addr, p.Bits())
}

// Read returns the content of the file at path. It ignores other keys. Only a subnet
// is mandatory, but any value that does not parse is an error. The error for a missing
// file is fs.ErrNotExist.
func Read(path string) (Env, error) {
	text, err := readText(path)
	if err != nil {
		return Env{}, err
	}
	e, err := parse(text)
	if err != nil {
		return Env{}, fmt.Errorf("read %s: %w", path, err)
	}
	return e, nil
}

func parse(text string) (Env, error) {
	vars, err := assignments(text)
	if err != nil {
		return Env{}, err
	}
	var e Env
	for key, value := range vars {
		switch key {
		case keyNetwork:
			e.Network, err = parsePrefix(value)
		case keySubnet:
			e.Subnet, err = parsePrefix(value)
		case keyIPv6Network:
			e.IPv6Network, err = parsePrefix(value)
		case keyIPv6Subnet:
			e.IPv6Subnet, err = parsePrefix(value)
		case keyMTU:
			var mtu uint64
			mtu, err = strconv.ParseUint(value, 10, 16)
			e.MTU = int(mtu)
		case keyIPMasq:
			e.IPMasq, err = strconv.ParseBool(value)
		}
		if err != nil {
			return Env{}, fmt.Errorf("parse %s=%q: %w", key, value, err)
		}
	}
	if !e.Subnet.IsValid() && !e.IPv6Subnet.IsValid() {
		return Env{}, fmt.Errorf("no %s", keySubnet)
	}
	return e, nil
}

func parsePrefix(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(strings.TrimSpace(s))
	return p.Masked(), err
}
