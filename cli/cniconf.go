package cli

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/subnetfile"
)

var cniConfCommand = command{
	name: "cni-conf", summary: "print a configuration of CNI's bridge plugin for this host's subnet",
	detail: "Put it into /etc/cni/net.d, e.g. as 10-flannel.conflist, once flannel is ready:\nit follows from subnet.env, and so changes when the subnet does.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		from := fs.String("subnet-file", "/run/flannel/subnet.env", "`file` that flannel has written")
		name := fs.String("name", "flannel", "`name` of the network")
		bridge := fs.String("bridge", "cni0", "`name` of the bridge")
		return func(context.Context, []string) error {
			env, err := subnetfile.Read(*from)
			if err != nil {
				return fmt.Errorf("read subnet, is flannel ready? %w", err)
			}
			if !env.Network.IsValid() {
				return errors.New("the subnet file does not say the network")
			}
			return printJSON(p.Stdout, bridgeConf(env, *name, *bridge))
		}
	},
}

// The CNI specification 1.0.0, and the documentation of the plugins bridge and
// host-local.
type (
	cniList struct {
		Version string      `json:"cniVersion"`
		Name    string      `json:"name"`
		Plugins []cniBridge `json:"plugins"`
	}
	cniBridge struct {
		Type      string  `json:"type"`
		Bridge    string  `json:"bridge"`
		MTU       int     `json:"mtu,omitempty"`
		IsGateway bool    `json:"isGateway"`
		IPMasq    bool    `json:"ipMasq"`
		Hairpin   bool    `json:"hairpinMode"`
		IPAM      cniIPAM `json:"ipam"`
	}
	cniIPAM struct {
		Type   string       `json:"type"`
		Ranges [][]cniRange `json:"ranges"`
		Routes []cniRoute   `json:"routes"`
	}
	cniRange struct {
		Subnet  netip.Prefix `json:"subnet"`
		Gateway netip.Addr   `json:"gateway"`
	}
	cniRoute struct {
		Dst netip.Prefix `json:"dst"`
	}
)

// bridgeConf leaves masquerading to flannel (-ip-masq): the plugin
// would hide containers from those of other hosts.
func bridgeConf(env subnetfile.Env, name, bridge string) cniList {
	return cniList{Version: "1.0.0", Name: name, Plugins: []cniBridge{{
		Type: "bridge", Bridge: bridge, MTU: env.MTU, IsGateway: true, Hairpin: true,
		IPAM: cniIPAM{
			Type:   "host-local",
			Ranges: [][]cniRange{{{Subnet: env.Subnet, Gateway: bridgeAddr(env).Addr()}}},
			Routes: []cniRoute{{netip.MustParsePrefix("0.0.0.0/0")}},
		},
	}}}
}

// bridgeAddr is the address that a container bridge has in the subnet.
func bridgeAddr(env subnetfile.Env) netip.Prefix {
	return netip.PrefixFrom(env.Subnet.Addr().Next(), env.Subnet.Bits())
}
