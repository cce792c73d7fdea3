package fastpath

import (
	"fmt"
	"maps"
	"slices"

	"github.com/coreos/flannel/pkg/hostrules"
)

// findings are the reasons against the fast path, by the packets that they concern.
type findings struct {
	// all are reasons that concern all packets, replyless those that concern flows
	// without a reply only.
	all, replyless []string
	// restless are reasons that concern addresses that move too often.
	restless []string
	// ports are reasons that concern one port, gateways those that concern one gateway, by
	// index. closed has the reasons of closed ports.
	ports, gateways, closed map[int]string
	// outer are reasons that concern one outer interface, by index.
	outer map[int]string
	// bridgeRule names a rule about what a bridge sends.
	bridgeRule string
}

// reasons lists all of them, and those of the topology.
func (f findings) reasons(t topology) []string {
	all := slices.Concat(f.all, f.replyless, f.restless)
	for _, g := range t.gateways {
		if g.kind == vlanBridge {
			all = append(all, fmt.Sprintf("bridge %s filters VLANs", g.name))
		}
	}
	for _, reason := range f.ports {
		if reason != "" {
			all = append(all, reason)
		}
	}
	for _, reason := range f.outer {
		all = append(all, reason)
	}
	slices.Sort(all)
	return all
}

// inspect looks for rules, filters and programs that see or change each packet of the
// long way. It runs in the network namespace of the device.
func (p *Path) inspect(t topology) (findings, error) {
	f := findings{ports: make(map[int]string), gateways: make(map[int]string), outer: make(map[int]string)}
	if err := p.programs.lacking; err != nil {
		f.all = append(f.all, err.Error())
	}
	rules, err := p.rules.Ruleset()
	if err != nil {
		return f, err
	}
	s := scene{network: p.config.Network, marks: p.config.Marks, outer: t.outerNames()}
	s.names = slices.AppendSeq(slices.Clone(s.outer), maps.Values(t.names))
	judged := judge(rules, s)
	f.all = append(f.all, judged[stateEstablished]...)
	for _, reason := range judged[stateNew] {
		if !slices.Contains(f.all, reason) {
			f.replyless = append(f.replyless, reason)
		}
	}
	legacy, err := hostrules.LegacyTables()
	if err != nil {
		return f, err
	}
	for _, table := range legacy {
		if table != "nat" { // it sees the first packet of a flow only
			f.all = append(f.all, fmt.Sprintf("table %s of legacy iptables", table))
		}
	}
	f.bridgeRule = bridgeRule(rules)
	for _, table := range ebtables() {
		f.all, f.bridgeRule = append(f.all, table), table
	}
	policies, err := p.rules.IPsecWithin(p.config.Network)
	if err != nil {
		return f, err
	}
	f.all = append(f.all, policies...)
	err = p.inspectLinks(t, &f)
	return f, err
}

// inspectLinks looks for shapers, filters and programs of others.
func (p *Path) inspectLinks(t topology, f *findings) error {
	l, err := p.newLinkInspector()
	if err != nil {
		return err
	}
	f.closed = l.closed
	if err := l.inspectOuter(t, f); err != nil {
		return err
	}
	for _, g := range t.gateways {
		reason, err := l.inspect(g.index)
		if err != nil {
			return err
		}
		f.gateways[g.index] = reason
		if reason != "" && g.kind == bridgeDevice {
			f.all = append(f.all, fmt.Sprintf("%s at %s", reason, g.name))
		}
		if t.xdp[g.index] && g.kind == bridgeDevice {
			f.all = append(f.all, "XDP program at "+g.name)
		}
	}
	for _, c := range t.containers {
		if _, done := f.ports[c.Port]; done {
			continue
		}
		reason, err := l.inspect(c.Port)
		if err != nil {
			return err
		}
		if reason == "" && l.screened[c.Port] {
			reason = "XDP program in the container"
		}
		if reason != "" {
			reason = fmt.Sprintf("%s at %s", reason, t.names[c.Port])
		}
		f.ports[c.Port] = reason
	}
	return nil
}
