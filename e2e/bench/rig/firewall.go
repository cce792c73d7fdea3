package rig

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/subnetfile"
)

// RuleSet is the firewall rules of both hosts.
type RuleSet struct {
	Name, About string
	// masquerade is flannel's -ip-masq, which also turns on connection tracking.
	masquerade bool
	// iptables adds the rules of kube-proxy and Docker.
	iptables bool
}

// RuleSets returns all rule sets, the usual one first.
func RuleSets() []RuleSet {
	return []RuleSet{
		{Name: "masq", About: "flannel's own rules (-ip-masq), with connection tracking", masquerade: true},
		{Name: "none", About: "no rules, no connection tracking"},
		{Name: "rules", About: fmt.Sprintf("as masq, and %d iptables rules as kube-proxy and Docker make them", iptablesRules), masquerade: true, iptables: true},
	}
}

// applyRules adds the rules of the pair's rule set, once. The daemons masquerade
// themselves; the transports by hand have the same table.
func (p *Pair) applyRules(ctx context.Context, envs [2]subnetfile.Env) error {
	f := p.setting.Inside
	for i, h := range p.hosts {
		subnet := p.setting.subnet(envs[i])
		if p.setting.Rules.masquerade && p.byHand {
			rules := masq.Rules{Network: overlays[f], Subnet: subnet}
			if err := h.Do(func() error { return masq.Apply(rules) }); err != nil {
				return fmt.Errorf("masquerade on %s: %w", h.Name(), err)
			}
		}
		if p.setting.Rules.iptables {
			if err := restore(ctx, h, f, kubeAndDocker(f, subnet)); err != nil {
				return fmt.Errorf("add rules to %s: %w", h.Name(), err)
			}
		}
	}
	return nil
}

// restorers are the programs that load rules, by family. Both belong to iptables.
var restorers = [...]string{inet.IPv4: "iptables-restore", inet.IPv6: "ip6tables-restore"}

func restore(ctx context.Context, h *netnstest.Host, f inet.Family, rules string) error {
	cmd := h.Command(ctx, restorers[f])
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", restorers[f], err, out)
	}
	return nil
}

const (
	// iptablesRules is the number of rules of kubeAndDocker: services with 8 each,
	// published ports with 3 each, and the frame around them.
	iptablesRules  = kubeServices*8 + publishedPorts*3 + frameRules
	kubeServices   = 100
	publishedPorts = 58
	frameRules     = 26
)

// Addresses in the rules, by family: services and pods follow clusterIPs and podIPs.
var (
	loopbacks = [...]netip.Prefix{
		inet.IPv4: netip.MustParsePrefix("127.0.0.0/8"),
		inet.IPv6: netip.MustParsePrefix("::1/128"),
	}
	clusterIPs = [...]netip.Addr{
		inet.IPv4: netip.MustParseAddr("10.96.0.0"),
		inet.IPv6: netip.MustParseAddr("fd00:96::"),
	}
	podIPs = [...]netip.Addr{
		inet.IPv4: netip.MustParseAddr("10.244.0.0"),
		inet.IPv6: netip.MustParseAddr("fd00:244::"),
	}
)

// kubeAndDocker returns rules for iptables-restore, in the order of the programs'
// own: kube-proxy's (pkg/proxy/iptables) stand first, then Docker's
// (libnetwork/drivers/bridge). Two rules in DOCKER-USER let the overlay pass, as
// docs/docker.md has them. A packet of an established connection meets only the
// first few; the first packet of each meets all services. The rules of both families
// differ in their addresses alone.
func kubeAndDocker(f inet.Family, subnet netip.Prefix) string {
	loopback := loopbacks[f]
	nat := table{name: "nat", chains: []string{"KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-MARK-MASQ", "KUBE-NODEPORTS", "DOCKER"}}
	filter := table{name: "filter", chains: []string{"KUBE-FORWARD", "KUBE-SERVICES", "KUBE-FIREWALL", "DOCKER-USER", "DOCKER-FORWARD", "DOCKER-CT", "DOCKER"}}

	nat.add("PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
	nat.add("OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
	nat.add("POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING")
	nat.add("KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN")
	nat.add("KUBE-POSTROUTING -j MARK --xor-mark 0x4000")
	nat.add("KUBE-POSTROUTING -j MASQUERADE --random-fully")
	nat.add("KUBE-MARK-MASQ -j MARK --or-mark 0x4000")
	for n := range kubeServices {
		nat.addService(f, n)
	}
	nat.add("KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
	nat.add("PREROUTING -m addrtype --dst-type LOCAL -j DOCKER")
	nat.add("OUTPUT ! -d %v -m addrtype --dst-type LOCAL -j DOCKER", loopback)
	nat.add("DOCKER -i %s -j RETURN", bridge)

	filter.add("INPUT -j KUBE-FIREWALL")
	filter.add("OUTPUT -j KUBE-FIREWALL")
	filter.add("KUBE-FIREWALL ! -s %v -d %v -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP", loopback, loopback)
	filter.add("FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD")
	filter.add("FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES")
	filter.add("FORWARD -j DOCKER-USER")
	filter.add("FORWARD -j DOCKER-FORWARD")
	filter.add("KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP")
	filter.add("KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT")
	filter.add("KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")
	filter.add("DOCKER-USER -s %v -j ACCEPT", overlays[f])
	filter.add("DOCKER-USER -d %v -j ACCEPT", overlays[f])
	filter.add("DOCKER-FORWARD -j DOCKER-CT")
	filter.add("DOCKER-CT -o %s -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", bridge)
	filter.add("DOCKER-FORWARD -o %s -j DOCKER", bridge)
	for n := range publishedPorts {
		container := host(nth(subnet.Addr(), 100+n))
		nat.add("POSTROUTING -s %v -d %v -p tcp -m tcp --dport 80 -j MASQUERADE", container, container)
		nat.add("DOCKER ! -i %s -p tcp -m tcp --dport %d -j DNAT --to-destination %v", bridge, 20000+n, netip.AddrPortFrom(container.Addr(), 80))
		filter.add("DOCKER -d %v ! -i %s -o %s -p tcp -m tcp --dport 80 -j ACCEPT", container, bridge, bridge)
	}
	return nat.text() + filter.text()
}

// table is a table of iptables.
type table struct {
	name   string
	chains []string
	rules  strings.Builder
}

func (t *table) add(format string, args ...any) { fmt.Fprintf(&t.rules, "-A "+format+"\n", args...) }

// addService adds the eight rules of a service with two endpoints.
func (t *table) addService(f inet.Family, n int) {
	cluster := host(nth(clusterIPs[f], n+1))
	service := fmt.Sprintf("KUBE-SVC-%016d", n)
	t.chains = append(t.chains, service)
	t.add("KUBE-SERVICES -d %v -p tcp -m comment --comment \"default/service%d cluster IP\" -m tcp --dport 80 -j %s", cluster, n, service)
	t.add("%s ! -s %v -d %v -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ", service, overlays[f], cluster)
	for i, choice := range []string{"-m statistic --mode random --probability 0.50000000000 ", ""} {
		endpoint := fmt.Sprintf("KUBE-SEP-%015d%d", n, i)
		pod := nth(podIPs[f], 2*n+i+1)
		t.chains = append(t.chains, endpoint)
		t.add("%s %s-j %s", service, choice, endpoint)
		t.add("%s -s %v -j KUBE-MARK-MASQ", endpoint, host(pod))
		t.add("%s -p tcp -m tcp -j DNAT --to-destination %v", endpoint, netip.AddrPortFrom(pod, 8080))
	}
}

func (t *table) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%s\n", t.name)
	for _, c := range t.chains {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	b.WriteString(t.rules.String() + "COMMIT\n")
	return b.String()
}
