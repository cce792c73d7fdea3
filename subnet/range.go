package subnet

import (
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
)

// Range is the part of the configuration that one family has, with defaults filled
// in. Its Network is invalid if the configuration does not enable the family.
type Range struct {
	// Network contains all subnets.
	Network netip.Prefix
	// SubnetLen is the prefix length of one host's subnet.
	SubnetLen int
	// SubnetMin and SubnetMax are the first addresses of the first and the last
	// subnet that may be handed out.
	SubnetMin, SubnetMax netip.Addr
}

// Enabled reports whether the configuration enables the family.
func (r Range) Enabled() bool { return r.Network.IsValid() }

// Allows reports whether p is a subnet that the configuration hands out.
func (r Range) Allows(p netip.Prefix) bool {
	return r.Enabled() && p.IsValid() && p.Bits() == r.SubnetLen && p == p.Masked() && inet.Of(p.Addr()) == inet.Of(r.SubnetMin) &&
		!p.Addr().Less(r.SubnetMin) && !r.SubnetMax.Less(p.Addr())
}

// subnetOf returns the subnet of the configured length that contains a.
func (r Range) subnetOf(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, r.SubnetLen).Masked()
}

// LastAddr returns the highest address of p.
func LastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// rangeKeys are the configuration's keys for a family, and the texts of their rules.
type rangeKeys struct {
	family                         inet.Family
	network, length, first, last   string
	networkExample, addressExample string
	// maxLen bounds the prefix length of a subnet, and why is its reason.
	maxLen int
	why    string
	// defaultLen returns the prefix length of the subnets of a network of bits.
	defaultLen func(bits int) int
	// special are the ranges that Network must not overlap.
	special []specialRange
}

// specialRange is a range of addresses that no network can use.
type specialRange struct{ prefix, name string }

var ipv4Keys = rangeKeys{
	family: inet.IPv4, network: "Network", length: "SubnetLen", first: "SubnetMin", last: "SubnetMax",
	networkExample: `must be an IPv4 network in CIDR notation, such as "10.5.0.0/16"`,
	addressExample: `must be an IPv4 address, such as "10.5.1.0"`,
	// The subnet's own address for the tunnel device, the bridge's, one container's,
	// and the broadcast address.
	maxLen: 30, why: "a host needs four addresses for its tunnel, its bridge, a container and the broadcast",
	defaultLen: func(bits int) int {
		if bits < 24 {
			return 24
		}
		return bits + 1
	},
	// RFC 6890, section 2.2.2. The rest of 240.0.0.0/4 is reserved, and in use.
	special: []specialRange{
		{"0.0.0.0/8", "this-network"}, {"127.0.0.0/8", "loopback"}, {"169.254.0.0/16", "link-local"},
		{"224.0.0.0/4", "multicast"}, {"255.255.255.255/32", "broadcast"},
	},
}

var ipv6Keys = rangeKeys{
	family: inet.IPv6, network: "IPv6Network", length: "IPv6SubnetLen", first: "IPv6SubnetMin", last: "IPv6SubnetMax",
	networkExample: `must be an IPv6 network in CIDR notation, such as "fd00:5::/48"`,
	addressExample: `must be an IPv6 address, such as "fd00:5:0:1::"`,
	maxLen:         126, why: "a host needs four addresses for its tunnel, its bridge and containers",
	// As in other generations of flannel: hosts of one network must agree.
	defaultLen: func(bits int) int {
		if bits <= 62 {
			return 64
		}
		return bits + 2
	},
	// RFC 6890, section 2.2.3; RFC 4291, section 2.5.5.
	special: []specialRange{
		{"::/96", "unspecified, loopback and IPv4-compatible"}, {"::ffff:0.0.0.0/96", "IPv4-mapped"},
		{"fe80::/10", "link-local"}, {"ff00::/8", "multicast"},
	},
}

// parse returns the range that raw describes.
func (k rangeKeys) parse(raw rawRange) (r Range, err error) {
	for _, part := range []func(rawRange, *Range) error{k.parseNetwork, k.parseLength, k.parseEnds} {
		if err := part(raw, &r); err != nil {
			return Range{}, err
		}
	}
	return r, nil
}

func (k rangeKeys) parseNetwork(raw rawRange, r *Range) error {
	var text string
	if err := decode(k.network, raw.network, &text, k.networkExample); err != nil {
		return err
	}
	if text == "" {
		return &ConfigError{Key: k.network, Rule: "is missing; it " + k.networkExample}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || inet.Of(p.Addr()) != k.family || p.Addr().Is4In6() {
		return &ConfigError{k.network, text, k.networkExample}
	}
	r.Network = p.Masked()
	if r.Network.Bits() == 0 {
		return &ConfigError{k.network, text, "is the whole Internet; its route would take the default route's place"}
	}
	for _, s := range k.special {
		if r.Network.Overlaps(netip.MustParsePrefix(s.prefix)) {
			return &ConfigError{k.network, text, "overlaps the " + s.name + " range " + s.prefix}
		}
	}
	return nil
}

func (k rangeKeys) parseLength(raw rawRange, r *Range) error {
	var n uint
	if err := decode(k.length, raw.length, &n, "must be a whole number, a prefix length"); err != nil {
		return err
	}
	switch bits := r.Network.Bits(); {
	case n == 0 && k.defaultLen(bits) > k.maxLen:
		largest := bits - (k.defaultLen(bits) - k.maxLen)
		return &ConfigError{k.network, r.Network.String(),
			fmt.Sprintf("is too small: it must hold two subnets of /%d or larger, so it must be /%d or larger", k.maxLen, largest)}
	case n == 0:
		r.SubnetLen = k.defaultLen(bits)
	case n > uint(k.maxLen):
		return &ConfigError{k.length, string(raw.length), fmt.Sprintf("must be at most %d: %s", k.maxLen, k.why)}
	case int(n) < bits:
		return &ConfigError{k.length, string(raw.length), fmt.Sprintf("makes a subnet larger than %s %v", k.network, r.Network)}
	default:
		r.SubnetLen = int(n)
	}
	return nil
}

func (k rangeKeys) parseEnds(raw rawRange, r *Range) error {
	first := r.Network.Addr()
	last := r.subnetOf(LastAddr(r.Network)).Addr()
	r.SubnetMin, r.SubnetMax = first, last
	// The first subnet stays unused if there is another: old systems take its
	// network address, which is the Network's, for a broadcast address. In IPv6 it
	// is the address of all routers (RFC 4291, section 2.6.1).
	if first != last {
		r.SubnetMin = LastAddr(r.subnetOf(first)).Next()
	}
	for _, end := range []struct {
		key   string
		raw   []byte
		value *netip.Addr
	}{
		{k.first, raw.first, &r.SubnetMin},
		{k.last, raw.last, &r.SubnetMax},
	} {
		if absent(end.raw) {
			continue
		}
		var text string
		if err := decode(end.key, end.raw, &text, k.addressExample); err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || inet.Of(a) != k.family || a.Zone() != "":
			return &ConfigError{end.key, string(end.raw), k.addressExample}
		case a.IsUnspecified():
			continue // as in other generations of flannel
		case !r.Network.Contains(a):
			return &ConfigError{end.key, text, fmt.Sprintf("is outside %s %v", k.network, r.Network)}
		case r.subnetOf(a).Addr() != a:
			return &ConfigError{end.key, text,
				fmt.Sprintf("is not the first address of a /%d subnet; the one that it lies in begins at %v", r.SubnetLen, r.subnetOf(a).Addr())}
		}
		*end.value = a
	}
	if r.SubnetMax.Less(r.SubnetMin) {
		return &ConfigError{k.first, r.SubnetMin.String(), fmt.Sprintf("is after %s %v", k.last, r.SubnetMax)}
	}
	return nil
}
