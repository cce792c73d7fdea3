package cni

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/containernetworking/cni/pkg/types"
)

const (
	defaultSubnetFile = "/run/flannel/subnet.env"
	defaultDataDir    = "/var/lib/cni/flannel"
)

// config is the plugin's configuration.
type config struct {
	CNIVersion    string          `json:"cniVersion"`
	Name          string          `json:"name"`
	SubnetFile    string          `json:"subnetFile"`
	DataDir       string          `json:"dataDir"`
	IPAM          map[string]any  `json:"ipam"`
	Delegate      map[string]any  `json:"delegate"`
	RuntimeConfig map[string]any  `json:"runtimeConfig"`
	PrevResult    json.RawMessage `json:"prevResult"`
	// Valid is the list of attachments that exist, in a GC; null is an empty list.
	Valid json.RawMessage `json:"cni.dev/valid-attachments"`
}

func parseConfig(text []byte) (*config, error) {
	c := &config{SubnetFile: defaultSubnetFile, DataDir: defaultDataDir}
	if err := json.Unmarshal(text, c); err != nil {
		return nil, types.NewError(types.ErrDecodingFailure, fmt.Sprintf("parse the CNI configuration of flannel: %v", err), "")
	}
	for _, key := range []string{"name", "ipam"} {
		if _, given := c.Delegate[key]; given {
			return nil, invalid("remove the key from the CNI configuration", "the delegate has the key %q, which flannel sets", key)
		}
	}
	if t, given := c.Delegate["type"]; given {
		if _, ok := t.(string); !ok || t == Name {
			return nil, invalid("set it to another plugin's name, such as \"bridge\"", "the delegate's type is %v", t)
		}
	}
	return c, nil
}

// delegate is a plugin that flannel runs, and its configuration.
type delegate struct {
	plugin string
	conf   map[string]any
}

// delegate makes the delegate's configuration for the host's subnets. Keys that c
// has for the delegate stay, except the name, the version and IPAM's ranges.
func (c *config) delegate(env *subnetEnv) (*delegate, error) {
	ipam, err := c.delegateIPAM(env)
	if err != nil {
		return nil, err
	}
	conf := make(map[string]any)
	maps.Copy(conf, c.Delegate)
	setDefault := func(key string, value any) {
		if _, given := conf[key]; !given {
			conf[key] = value
		}
	}
	setDefault("type", "bridge")
	setDefault("ipMasq", !env.ipMasq) // by the delegate, if not by flannel
	setDefault("mtu", env.mtu)
	plugin := fmt.Sprint(conf["type"]) // a string, by parseConfig
	if plugin == "bridge" {
		setDefault("isGateway", true)
	}
	conf["name"], conf["ipam"] = c.Name, ipam
	if c.CNIVersion != "" {
		conf["cniVersion"] = c.CNIVersion
	}
	if c.RuntimeConfig != nil {
		conf["runtimeConfig"] = c.RuntimeConfig
	}
	return &delegate{plugin, conf}, nil
}

// delegateIPAM makes the part of the IPAM plugin: a range for each of the host's
// subnets, and the configured routes with one to each network.
func (c *config) delegateIPAM(env *subnetEnv) (map[string]any, error) {
	ipam := map[string]any{"type": "host-local"}
	maps.Copy(ipam, c.IPAM)
	routes := []types.Route{}
	if given := c.IPAM["routes"]; given != nil {
		text, err := json.Marshal(given)
		if err == nil {
			err = json.Unmarshal(text, &routes)
		}
		if err != nil {
			return nil, invalid("correct them in the CNI configuration", "the ipam's routes are invalid: %v", err)
		}
	}
	for _, network := range env.networks {
		routes = append(routes, types.Route{Dst: network})
	}
	ranges := [][]map[string]any{}
	for _, subnet := range env.subnets {
		ranges = append(ranges, []map[string]any{{"subnet": subnet.String()}})
	}
	ipam["routes"], ipam["ranges"] = routes, ranges
	return ipam, nil
}

// with returns the delegate with another value of a key.
func (d *delegate) with(key string, value any) *delegate {
	conf := maps.Clone(d.conf)
	conf[key] = value
	return &delegate{d.plugin, conf}
}

// json returns the delegate's configuration, with sorted keys.
func (d *delegate) json() ([]byte, error) {
	text, err := json.Marshal(d.conf)
	if err != nil {
		return nil, types.NewError(types.ErrInternal, fmt.Sprintf("encode the configuration of the plugin %s: %v", d.plugin, err), "")
	}
	return text, nil
}

// parseDelegate is the inverse of json. It is an error if the type is missing.
func parseDelegate(text []byte) (*delegate, error) {
	var conf map[string]any
	if err := json.Unmarshal(text, &conf); err != nil {
		return nil, err
	}
	plugin, ok := conf["type"].(string)
	if !ok || plugin == "" {
		return nil, fmt.Errorf("the type is %v, not a plugin's name", conf["type"])
	}
	return &delegate{plugin, conf}, nil
}
