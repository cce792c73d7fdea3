package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

const (
	// defaultSubnetLen is the prefix length of subnets in a Network that is
	// large enough.
	defaultSubnetLen = 24
	// maxSubnetLen leaves a host four addresses: the subnet's own for the tunnel
	// device, the bridge's, one container's, and the broadcast address.
	maxSubnetLen = 30
	// defaultBackend is used if the configuration names none.
	defaultBackend = "udp"
)

// Config is the network configuration that all hosts share, with defaults
// filled in and every rule checked.
type Config struct {
	// Network contains all subnets.
	Network netip.Prefix
	// SubnetLen is the prefix length of one host's subnet.
	SubnetLen int
	// SubnetMin and SubnetMax are the first addresses of the first and the last
	// subnet that may be handed out.
	SubnetMin, SubnetMax netip.Addr
	// BackendType is Backend's "Type" in lower case, "udp" by default.
	BackendType string
	// Backend is the whole Backend object, nil without; the backend decodes it.
	Backend json.RawMessage `json:",omitempty"`
	// IPv6Network is set if the configuration enables IPv6, which is not carried;
	// the caller should warn of it.
	IPv6Network string
}

// ConfigError is a key of the network configuration that breaks a rule.
type ConfigError struct {
	Key, Value string
	// Rule completes the sentence "<Key> <Value> …".
	Rule string
}

// Error returns key, value and rule as a sentence.
func (e *ConfigError) Error() string {
	if e.Value == "" {
		return e.Key + " " + e.Rule
	}
	return e.Key + " " + e.Value + " " + e.Rule
}

// rawConfig defers the decoding of values, so that an error can name its key
// and quote its value. encoding/json ignores the case of keys.
type rawConfig struct {
	Network     json.RawMessage
	SubnetLen   json.RawMessage
	SubnetMin   json.RawMessage
	SubnetMax   json.RawMessage
	Backend     json.RawMessage
	EnableIPv4  json.RawMessage
	EnableIPv6  json.RawMessage
	IPv6Network json.RawMessage
}

// ConfigText returns the JSON of a network configuration for arg, which is that
// JSON itself or the CIDR of a Network alone. ParseConfig checks the result.
func ConfigText(arg string) []byte {
	if strings.HasPrefix(strings.TrimSpace(arg), "{") {
		return []byte(arg)
	}
	return fmt.Appendf(nil, `{"Network": %q}`, arg)
}

// ParseConfig decodes and checks a network configuration. It accepts every IPv4
// configuration that a generation of flannel accepts, and ignores unknown keys.
// A broken rule gives a *ConfigError, broken JSON the decoder's error.
func ParseConfig(data []byte) (*Config, error) {
	var raw rawConfig
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, describeJSON(data, err)
	}
	var c Config
	for _, part := range []func(rawConfig) error{
		c.parseNetwork, c.parseSubnetLen, c.parseRange, c.parseBackend, c.parseIPv6,
	} {
		if err := part(raw); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func describeJSON(data []byte, err error) error {
	syntax, isSyntax := errors.AsType[*json.SyntaxError](err)
	kind, isKind := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case len(bytes.TrimSpace(data)) == 0:
		return errors.New(`network configuration is empty; it must be a JSON object such as {"Network": "10.5.0.0/16"}`)
	case isSyntax:
		return fmt.Errorf("network configuration is not valid JSON at byte %d: %w", syntax.Offset, err)
	case isKind:
		return fmt.Errorf(`network configuration is a JSON %s; it must be an object such as {"Network": "10.5.0.0/16"}`, kind.Value)
	}
	return fmt.Errorf("decode network configuration: %w", err)
}

// decode reads one value; an absent one and null leave into unchanged.
func decode(key string, raw json.RawMessage, into any, rule string) error {
	if absent(raw) {
		return nil
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return &ConfigError{key, string(raw), rule}
	}
	return nil
}

func absent(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

func (c *Config) parseNetwork(raw rawConfig) error {
	const example = `must be an IPv4 network in CIDR notation, such as "10.5.0.0/16"`
	ipv4 := true
	if err := decode("EnableIPv4", raw.EnableIPv4, &ipv4, "must be true or false"); err != nil {
		return err
	}
	if !ipv4 {
		return &ConfigError{"EnableIPv4", "false", "is not supported: the overlay carries IPv4"}
	}
	var text string
	if err := decode("Network", raw.Network, &text, example); err != nil {
		return err
	}
	if text == "" {
		return &ConfigError{Key: "Network", Rule: "is missing; it " + example}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || !p.Addr().Is4() {
		return &ConfigError{"Network", text, example}
	}
	c.Network = p.Masked()
	if c.Network.Bits() == 0 {
		return &ConfigError{"Network", text, "is the whole Internet; its route would take the default route's place"}
	}
	// RFC 6890, section 2.2.2. The rest of 240.0.0.0/4 is reserved, and in use.
	for _, special := range []struct{ prefix, name string }{
		{"0.0.0.0/8", "this-network"}, {"127.0.0.0/8", "loopback"}, {"169.254.0.0/16", "link-local"},
		{"224.0.0.0/4", "multicast"}, {"255.255.255.255/32", "broadcast"},
	} {
		if c.Network.Overlaps(netip.MustParsePrefix(special.prefix)) {
			return &ConfigError{"Network", text, "overlaps the " + special.name + " range " + special.prefix}
		}
	}
	return nil
}

func (c *Config) parseSubnetLen(raw rawConfig) error {
	var n uint
	if err := decode("SubnetLen", raw.SubnetLen, &n, "must be a whole number, a prefix length"); err != nil {
		return err
	}
	switch bits := c.Network.Bits(); {
	case n == 0 && bits >= maxSubnetLen:
		return &ConfigError{"Network", c.Network.String(),
			fmt.Sprintf("is too small: it must hold two subnets of /%d or larger, so it must be /%d or larger", maxSubnetLen, maxSubnetLen-1)}
	case n == 0 && bits < defaultSubnetLen:
		c.SubnetLen = defaultSubnetLen
	case n == 0:
		c.SubnetLen = bits + 1
	case n > maxSubnetLen:
		return &ConfigError{"SubnetLen", string(raw.SubnetLen),
			fmt.Sprintf("must be at most %d: a host needs four addresses for its tunnel, its bridge, a container and the broadcast", maxSubnetLen)}
	case int(n) < bits:
		return &ConfigError{"SubnetLen", string(raw.SubnetLen),
			fmt.Sprintf("makes a subnet larger than Network %v", c.Network)}
	default:
		c.SubnetLen = int(n)
	}
	return nil
}

func (c *Config) parseRange(raw rawConfig) error {
	first := c.Network.Addr()
	last := c.subnetOf(LastAddr(c.Network)).Addr()
	c.SubnetMin, c.SubnetMax = first, last
	// The first subnet stays unused if there is another: old systems take its
	// network address, which is the Network's, for a broadcast address.
	if first != last {
		c.SubnetMin = LastAddr(c.subnetOf(first)).Next()
	}
	for _, end := range []struct {
		key   string
		raw   json.RawMessage
		value *netip.Addr
	}{
		{"SubnetMin", raw.SubnetMin, &c.SubnetMin},
		{"SubnetMax", raw.SubnetMax, &c.SubnetMax},
	} {
		const example = `must be an IPv4 address, such as "10.5.1.0"`
		if absent(end.raw) {
			continue
		}
		var text string
		if err := decode(end.key, end.raw, &text, example); err != nil {
			return err
		}
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil || !a.Is4():
			return &ConfigError{end.key, string(end.raw), example}
		case a.IsUnspecified():
			continue // as in other generations of flannel
		case !c.Network.Contains(a):
			return &ConfigError{end.key, text, fmt.Sprintf("is outside Network %v", c.Network)}
		case c.subnetOf(a).Addr() != a:
			return &ConfigError{end.key, text,
				fmt.Sprintf("is not the first address of a /%d subnet; the one that it lies in begins at %v", c.SubnetLen, c.subnetOf(a).Addr())}
		}
		*end.value = a
	}
	if c.SubnetMax.Less(c.SubnetMin) {
		return &ConfigError{"SubnetMin", c.SubnetMin.String(), fmt.Sprintf("is after SubnetMax %v", c.SubnetMax)}
	}
	return nil
}

func (c *Config) parseBackend(raw rawConfig) error {
	const example = `must be an object such as {"Type": "udp"}`
	c.BackendType = defaultBackend
	var be map[string]json.RawMessage
	if err := decode("Backend", raw.Backend, &be, example); err != nil {
		return err
	}
	if be == nil {
		return nil
	}
	c.Backend = raw.Backend
	var typed struct{ Type string }
	if err := decode("Backend", raw.Backend, &typed, `must have a string as its "Type"`); err != nil {
		return err
	}
	if typed.Type != "" {
		c.BackendType = strings.ToLower(typed.Type)
	}
	return nil
}

func (c *Config) parseIPv6(raw rawConfig) error {
	var enabled bool
	if err := decode("EnableIPv6", raw.EnableIPv6, &enabled, "must be true or false"); err != nil {
		return err
	}
	if !enabled {
		return nil
	}
	return decode("IPv6Network", raw.IPv6Network, &c.IPv6Network, "must be a string")
}

// subnetOf returns the subnet of the configured length that contains a.
func (c *Config) subnetOf(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, c.SubnetLen).Masked()
}

// Allows reports whether p is a subnet that the configuration hands out.
func (c *Config) Allows(p netip.Prefix) bool {
	return p.IsValid() && p.Bits() == c.SubnetLen && p == p.Masked() &&
		!p.Addr().Less(c.SubnetMin) && !c.SubnetMax.Less(p.Addr())
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
