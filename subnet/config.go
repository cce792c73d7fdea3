package subnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
)

// defaultBackend is used if the configuration names none.
const defaultBackend = "udp"

// Config is the network configuration that all hosts share, with defaults
// filled in and every rule checked. It enables one family at least.
type Config struct {
	// Range is the IPv4 part, IPv6 the other.
	Range
	IPv6 Range `json:",omitzero"`
	// BackendType is Backend's "Type" in lower case, "udp" by default.
	BackendType string
	// Backend is the whole Backend object, nil without; the backend decodes it.
	Backend json.RawMessage `json:",omitempty"`
}

// RangeOf returns the part of a family.
func (c *Config) RangeOf(f inet.Family) Range {
	if f == inet.IPv4 {
		return c.Range
	}
	return c.IPv6
}

// Families returns the enabled families.
func (c *Config) Families() (enabled []inet.Family) {
	for _, f := range inet.Families {
		if c.RangeOf(f).Enabled() {
			enabled = append(enabled, f)
		}
	}
	return enabled
}

// Networks returns the networks of the enabled families for logs and messages,
// separated by a comma.
func (c *Config) Networks() string {
	var all []string
	for _, f := range c.Families() {
		all = append(all, c.RangeOf(f).Network.String())
	}
	return strings.Join(all, ",")
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
	Network       json.RawMessage
	SubnetLen     json.RawMessage
	SubnetMin     json.RawMessage
	SubnetMax     json.RawMessage
	Backend       json.RawMessage
	EnableIPv4    json.RawMessage
	EnableIPv6    json.RawMessage
	IPv6Network   json.RawMessage
	IPv6SubnetLen json.RawMessage
	IPv6SubnetMin json.RawMessage
	IPv6SubnetMax json.RawMessage
}

// rawRange are the values of one family's keys.
type rawRange struct{ network, length, first, last json.RawMessage }

// ConfigText returns the JSON of a network configuration for arg, which is that
// JSON itself, or the CIDR of a Network or an IPv6Network alone, or both, separated by
// a comma. ParseConfig checks the result.
func ConfigText(arg string) []byte {
	if strings.HasPrefix(strings.TrimSpace(arg), "{") {
		return []byte(arg)
	}
	v4, v6, both := strings.Cut(arg, ",")
	if p, err := netip.ParsePrefix(arg); err == nil && p.Addr().Is6() {
		return fmt.Appendf(nil, `{"IPv6Network": %q}`, arg)
	}
	if both {
		return fmt.Appendf(nil, `{"Network": %q, "IPv6Network": %q}`, v4, v6)
	}
	return fmt.Appendf(nil, `{"Network": %q}`, arg)
}

// ParseConfig decodes and checks a network configuration. It accepts every
// configuration that a generation of flannel accepts, and ignores unknown keys. A
// family is enabled by EnableIPv4 or EnableIPv6; if that is absent, by its network.
// A broken rule gives a *ConfigError, broken JSON the decoder's error.
func ParseConfig(data []byte) (*Config, error) {
	var raw rawConfig
	if err := json.Unmarshal(data, &raw); err != nil {
		return nil, describeJSON(data, err)
	}
	var c Config
	for _, part := range []func(rawConfig) error{c.parseRanges, c.parseBackend} {
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

func (c *Config) parseRanges(raw rawConfig) (err error) {
	ipv6 := !unset(raw.IPv6Network)
	if err := decode("EnableIPv6", raw.EnableIPv6, &ipv6, "must be true or false"); err != nil {
		return err
	}
	// Without a network of either family, Network is the one that is missing.
	ipv4 := !ipv6 || !unset(raw.Network)
	if err := decode("EnableIPv4", raw.EnableIPv4, &ipv4, "must be true or false"); err != nil {
		return err
	}
	if !ipv4 && !ipv6 {
		return &ConfigError{"EnableIPv4", "false", "leaves the network without a family: IPv6 is off too; set IPv6Network, or leave out EnableIPv4"}
	}
	if ipv4 {
		c.Range, err = ipv4Keys.parse(rawRange{raw.Network, raw.SubnetLen, raw.SubnetMin, raw.SubnetMax})
	}
	if err == nil && ipv6 {
		c.IPv6, err = ipv6Keys.parse(rawRange{raw.IPv6Network, raw.IPv6SubnetLen, raw.IPv6SubnetMin, raw.IPv6SubnetMax})
	}
	return err
}

// unset reports whether a network has no value, or one that means none in other
// programs: k3s writes "::/0" and "0.0.0.0/0".
func unset(raw json.RawMessage) bool {
	var text string
	return absent(raw) || json.Unmarshal(raw, &text) == nil && (text == "" || text == "0.0.0.0/0" || text == "::/0")
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
