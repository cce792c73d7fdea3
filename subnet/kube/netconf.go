package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

// defaultLen is the SubnetLen of a configuration without one, by family.
const defaultLen, defaultLenV6 = 24, 64

// ErrOutside: our podCIDR is not within the network of the configuration.
var ErrOutside = fmt.Errorf("podCIDR is outside of the network: %w", subnet.ErrUnassigned)

// Config implements subnet.Source: it returns the file of -net-config-path.
// Kubernetes chooses the subnets, so SubnetLen is that of our podCIDR, and the range
// of subnets is left out. A Network that the file lacks is taken from the podCIDRs of
// all Nodes.
//
// Errors, beside those of the contract: the Node does not exist, has no podCIDR, or
// one outside of the network (ErrOutside).
func (s *Store) Config(ctx context.Context) ([]byte, error) {
	if err := s.usable(ctx); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(s.config.NetConfig)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s does not exist (-net-config-path; in a pod, the key net-conf.json of the ConfigMap)", subnet.ErrNoConfig, s.config.NetConfig)
	}
	if err != nil {
		return nil, fmt.Errorf("read network configuration: %w", err)
	}
	name, err := s.selfName(ctx)
	if err != nil || name == "" {
		return text, err
	}
	n, err := s.lastOwn(ctx)
	if err != nil {
		return nil, err
	}
	c := netConf{file: s.config.NetConfig, keys: make(map[string]json.RawMessage)}
	if json.Unmarshal(text, &c.keys) != nil {
		return text, nil // the caller's parser says what is wrong
	}
	if err := s.complete(ctx, &c, n); err != nil {
		return nil, err
	}
	if !c.changed {
		return text, nil
	}
	return json.Marshal(c.keys)
}

// complete fits c to the podCIDRs of n, our Node.
func (s *Store) complete(ctx context.Context, c *netConf, n *node) error {
	v4, v6, err := n.subnets()
	if err != nil {
		return err
	}
	enabled := map[string]bool{"EnableIPv4": c.enables("EnableIPv4"), "EnableIPv6": c.enables("EnableIPv6")} // as the file has it
	for _, f := range []struct {
		enable, network, length, least, most string
		defaultLen                           int
		own                                  netip.Prefix
	}{
		{"EnableIPv4", "Network", "SubnetLen", "SubnetMin", "SubnetMax", defaultLen, v4},
		{"EnableIPv6", "IPv6Network", "IPv6SubnetLen", "IPv6SubnetMin", "IPv6SubnetMax", defaultLenV6, v6},
	} {
		for _, key := range []string{f.length, f.least, f.most} {
			c.remove(key)
		}
		if !f.own.IsValid() {
			continue
		}
		network, err := c.prefix(f.network)
		switch {
		case err != nil || !network.IsValid() && !enabled[f.enable]:
			continue // the caller's parser says what is wrong
		case !network.IsValid():
			if network, err = s.deduce(ctx, f.own); err != nil {
				return err
			}
			log.V(1).Infof("took the network from the podCIDRs of all nodes %s=%v hint=%q", f.network, network, "name the cluster CIDR in "+c.file)
			c.set(f.network, network.String())
		case network.Bits() > f.own.Bits() || !network.Contains(f.own.Addr()):
			return fmt.Errorf("%w: node %s has podCIDR %v, and %s is %v in %s: set it there to the -cluster-cidr of kube-controller-manager (kubeadm: networking.podSubnet)",
				ErrOutside, n.Metadata.Name, f.own, f.network, network, c.file)
		}
		if f.own.Bits() != f.defaultLen {
			c.set(f.length, f.own.Bits())
		}
	}
	return nil
}

// deduce returns the smallest network that holds own and every other podCIDR of its
// family, at least a /16 of IPv4 or a /48 of IPv6: the usual size of a cluster CIDR.
func (s *Store) deduce(ctx context.Context, own netip.Prefix) (netip.Prefix, error) {
	most := 16
	if own.Addr().Is6() {
		most = 48
	}
	network := netip.PrefixFrom(own.Addr(), min(most, own.Bits())).Masked()
	_, err := s.list(ctx, func(n *node) {
		v4, v6, err := n.subnets()
		if err != nil {
			return // it has no part in the network
		}
		for _, p := range []netip.Prefix{v4, v6} {
			for p.IsValid() && p.Addr().Is4() == own.Addr().Is4() && !(network.Bits() <= p.Bits() && network.Contains(p.Addr())) {
				network = netip.PrefixFrom(network.Addr(), network.Bits()-1).Masked()
			}
		}
	})
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("take the network from the podCIDRs of all nodes: %w", err)
	}
	return network, nil
}

// netConf is a network configuration under change. The case of its keys does not
// matter, as for encoding/json.
type netConf struct {
	file    string
	keys    map[string]json.RawMessage
	changed bool
}

// find returns the spelling of key in the file.
func (c *netConf) find(key string) (string, bool) {
	for _, k := range slices.Sorted(maps.Keys(c.keys)) {
		if strings.EqualFold(k, key) {
			return k, true
		}
	}
	return key, false
}

func (c *netConf) remove(key string) {
	if k, ok := c.find(key); ok {
		delete(c.keys, k)
		c.changed = true
	}
}

func (c *netConf) set(key string, value any) {
	c.remove(key)
	// A string or a number always encodes.
	c.keys[key], _ = json.Marshal(value)
	c.changed = true
}

// prefix returns the value of key. It is invalid if the key is missing, or if its
// value is 0.0.0.0/0 or ::/0, as k3s writes for a family that is off.
func (c *netConf) prefix(key string) (netip.Prefix, error) {
	k, ok := c.find(key)
	var text string
	if !ok || json.Unmarshal(c.keys[k], &text) != nil || text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if p.Bits() == 0 {
		return netip.Prefix{}, nil
	}
	return p.Masked(), nil
}

// enables reports whether a family without a network is to have one: its switch is
// on, or it is missing and no network is given at all.
func (c *netConf) enables(key string) (on bool) {
	if k, ok := c.find(key); ok {
		return json.Unmarshal(c.keys[k], &on) == nil && on
	}
	for _, key := range []string{"Network", "IPv6Network"} {
		if p, err := c.prefix(key); err != nil || p.IsValid() {
			return false
		}
	}
	return true
}
