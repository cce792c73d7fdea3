package subnet

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
)

// ConfigDifference is a key that differs between two configurations. Before and
// After are its values, for display: secrets are left out.
type ConfigDifference struct{ Key, Before, After string }

// String returns the difference as "Key: before -> after".
func (d ConfigDifference) String() string { return d.Key + ": " + d.Before + " -> " + d.After }

// Diff returns the keys in which after differs from c, in a fixed order: those of
// IPv4, Network, SubnetLen, SubnetMin, SubnetMax; those of IPv6; Backend.Type and
// Backend. The spelling of JSON makes no difference.
func (c *Config) Diff(after *Config) []ConfigDifference {
	var diff []ConfigDifference
	add := func(key, before, after string) {
		if before != after {
			diff = append(diff, ConfigDifference{key, before, after})
		}
	}
	for _, k := range []rangeKeys{ipv4Keys, ipv6Keys} {
		was, is := c.RangeOf(k.family), after.RangeOf(k.family)
		add(k.network, textOf(was.Network), textOf(is.Network))
		if !was.Enabled() || !is.Enabled() {
			continue // the other keys have no value
		}
		add(k.length, strconv.Itoa(was.SubnetLen), strconv.Itoa(is.SubnetLen)) // promise: subnet-len-is-compared
		add(k.first, was.SubnetMin.String(), is.SubnetMin.String())
		add(k.last, was.SubnetMax.String(), is.SubnetMax.String())
	}
	add("Backend.Type", c.BackendType, after.BackendType)
	if !reflect.DeepEqual(decodeBackend(c), decodeBackend(after)) { // they may differ in a secret alone
		diff = append(diff, ConfigDifference{"Backend", redact(c.Backend), redact(after.Backend)})
	}
	return diff
}

// textOf returns a network's text; "" for none.
func textOf(network netip.Prefix) string {
	if !network.IsValid() {
		return ""
	}
	return network.String()
}

// decodeBackend returns c's Backend object, with its type as BackendType has it. As
// for encoding/json, the case of keys makes no difference.
func decodeBackend(c *Config) map[string]any {
	var given map[string]any
	if len(c.Backend) > 0 && json.Unmarshal(c.Backend, &given) != nil {
		return nil // unreachable: ParseConfig has decoded it
	}
	keys := make(map[string]any, len(given)+1)
	for key, value := range given {
		keys[strings.ToLower(key)] = value
	}
	keys["type"] = c.BackendType
	return keys
}

// compact returns a Backend object without white space; the default for none.
func compact(backend json.RawMessage) string {
	var out bytes.Buffer
	if len(backend) == 0 || json.Compact(&out, backend) != nil {
		return `{"Type":"` + defaultBackend + `"}`
	}
	return out.String()
}

// redact returns a Backend object for display: wireguard's preshared key must
// not reach terminals or logs.
func redact(backend json.RawMessage) string {
	var keys map[string]json.RawMessage
	if json.Unmarshal(backend, &keys) != nil {
		return compact(backend)
	}
	for key := range keys {
		if strings.EqualFold(key, "PSK") {
			keys[key] = json.RawMessage(`"…"`)
		}
	}
	shown, err := json.Marshal(keys)
	if err != nil {
		return compact(nil)
	}
	return compact(shown)
}
