package cli

import (
	"context"
	"flag"
	"fmt"
	"net/netip"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/subnetfile"
)

var cniConfCommand = command{
	name: "cni-conf", summary: "print a configuration of the CNI plugin bridge for this host's subnet",
	detail: "Write it to /etc/cni/net.d, e.g. as 10-flannel.conflist, after flannel is ready. It is made from -subnet-file:\nif the subnet changes, print it again.",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		from := subnetFileFlag(fs)
		name := fs.String("name", "flannel", "`name` of the network")
		bridge := fs.String("bridge", "cni0", "`name` of the bridge")
		return func(context.Context, []string) error {
			env, err := readSubnetFile(*from)
			if err != nil {
				return err
			}
			if !env.Network.IsValid() && !env.IPv6Network.IsValid() {
				return fmt.Errorf("%s has no network", *from)
			}
			return printJSON(p.Stdout, bridgeConf(env, *name, *bridge))
		}
	},
}

// Types of the CNI specification 1.0.0, and of the documentation of the plugins
// bridge and host-local.
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

// bridgeConf leaves masquerading to flannel (-ip-masq). The plugin would also
// translate packets to containers of other hosts. A container gets an address of
// each range.
func bridgeConf(env subnetfile.Env, name, bridge string) cniList {
	ipam := cniIPAM{Type: "host-local"}
	for _, subnet := range []netip.Prefix{env.Subnet, env.IPv6Subnet} {
		if subnet.IsValid() {
			gateway := subnetfile.FirstUsable(subnet).Addr()
			ipam.Ranges = append(ipam.Ranges, []cniRange{{Subnet: subnet, Gateway: gateway}})
			ipam.Routes = append(ipam.Routes, cniRoute{netip.PrefixFrom(inet.Of(gateway).Unspecified(), 0)})
		}
	}
	return cniList{Version: "1.0.0", Name: name, Plugins: []cniBridge{{
		Type: "bridge", Bridge: bridge, MTU: env.MTU, IsGateway: true, Hairpin: true,
		IPAM: ipam,
	}}}
}
