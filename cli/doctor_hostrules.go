package cli

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/coreos/flannel/pkg/hostrules"
)

// checkHostRules looks for rules of the host about the datagrams of the udp backend.
// Those of IPsec and nftables suspend the kernel data path; it passes by those of
// legacy iptables.
func checkHostRules(f *facts) finding {
	backend, port := f.endpoint()
	if backend != "udp" || f.uplinkErr != nil {
		return finding{}
	}
	for _, local := range f.localAddrs() {
		rule, err := findHostRule(hostrules.Datagrams{Local: local, Port: uint16(port), Peers: f.peers()})
		if err != nil {
			return warn("sudo flannel doctor", "rules of the host cannot be read: %v", err)
		}
		if rule != "" {
			return warn("change the rule, or run the daemon with -udp-datapath=offload", "the kernel data path is not used while %s", rule)
		}
	}
	legacy, err := hostrules.LegacyTables()
	if err != nil {
		return warn("sudo flannel doctor", "%v", err)
	}
	if len(legacy) > 0 && f.dataPath() == "kernel" {
		return warn("run the daemon with -udp-datapath=offload if the tables have rules for UDP port "+strconv.Itoa(port)+": iptables-legacy-save",
			"the kernel data path passes by the tables %s of legacy iptables", strings.Join(legacy, ", "))
	}
	return okay("no policy of IPsec and no rule of nftables keeps the udp backend from the kernel data path")
}

func findHostRule(d hostrules.Datagrams) (string, error) {
	rules, err := hostrules.Open()
	if err != nil {
		return "", err
	}
	defer rules.Close()
	return rules.Find(d)
}

// localAddrs returns this host's addresses for datagrams: that of the uplink, and the
// daemon's of IPv6.
func (f *facts) localAddrs() []netip.Addr {
	local := []netip.Addr{f.uplink.Addr}
	if f.report != nil && f.report.Node.PublicIPv6.IsValid() {
		local = append(local, f.report.Node.PublicIPv6)
	}
	return local
}

// peers returns the addresses of the hosts that the daemon knows.
func (f *facts) peers() (peers []netip.Addr) {
	if f.report == nil || f.report.Backend == nil {
		return nil
	}
	for _, p := range f.report.Backend.Peers {
		peers = append(peers, p.PublicIP)
	}
	return peers
}

// dataPath returns the data path that the daemon uses, "" if it is not known.
func (f *facts) dataPath() string {
	if f.report == nil || f.report.Backend == nil {
		return ""
	}
	return f.report.Backend.DataPath
}
