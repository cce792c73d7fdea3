package fastpath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
)

// A rule whose verdict is the same for all packets of a flow need not see each
// of them. judge finds the others that packets of the fast path would meet on
// the long way.

// conntrack states that packets of the fast path have there, as bits
// (NF_CT_STATE_BIT of linux/netfilter/nf_conntrack_common.h).
const (
	stateEstablished = 1 << 1
	stateNew         = 1 << 3 // one-way UDP
)

// scene is what is known of the packets.
type scene struct {
	network netip.Prefix
	marks   Marks
	// names are those of the interfaces that packets come and leave by: tunnel,
	// bridges and ports.
	names []string
}

// judge returns the rules that judge or change each packet of a flow, by
// conntrack state of the flow.
func judge(rules *hostrules.Ruleset, s scene) map[uint32][]string {
	found := make(map[uint32][]string)
	for _, state := range []uint32{stateEstablished, stateNew} {
		j := &judgement{Ruleset: rules, scene: s, state: state}
		for _, c := range rules.Bases {
			if j.meets(c) {
				j.walk(c, nil)
			}
		}
		slices.Sort(j.found)
		found[state] = slices.Compact(j.found)
	}
	return found
}

// judgement follows packets of one state through the chains.
type judgement struct {
	*hostrules.Ruleset
	scene
	state uint32
	found []string
}

// meets reports whether packets of the long way pass the hook of a base chain.
// Chains of type nat see the first packet of a flow only (nf_nat_inet_fn in
// net/netfilter/nf_nat_core.c).
func (j *judgement) meets(c *hostrules.Chain) bool {
	if c.Kind == "nat" || ourTable(c.Table) {
		return false
	}
	switch c.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet:
		return c.Hook == unix.NF_INET_PRE_ROUTING || c.Hook == unix.NF_INET_FORWARD ||
			c.Hook == unix.NF_INET_POST_ROUTING || j.onDevice(c)
	case nftables.TableFamilyBridge:
		return c.Hook != unix.NF_INET_FORWARD
	case nftables.TableFamilyNetdev:
		return j.onDevice(c)
	}
	return false
}

func (j *judgement) onDevice(c *hostrules.Chain) bool {
	return slices.ContainsFunc(c.Devices, func(d string) bool { return slices.Contains(j.names, d) })
}

// walk reports whether all packets end there: accepted or dropped.
func (j *judgement) walk(c *hostrules.Chain, from []*hostrules.Chain) bool {
	if slices.Contains(from, c) {
		return false
	}
	from = append(from, c)
	for _, exprs := range c.Rules {
		r := rule{judgement: j, loaded: make(map[uint32]symbol), match: always}
		for _, e := range exprs {
			if r.add(e); r.match == never {
				break
			}
		}
		if r.match == never {
			continue
		}
		if r.perPacket != "" {
			j.found = append(j.found, fmt.Sprintf("rule %q in chain %v", r.perPacket, c))
		}
		end := r.ends
		for _, target := range j.Targets(c, r.jump, r.mapped) {
			if j.walk(target, from) {
				end = end || r.jump != ""
			}
		}
		if end && r.match == always {
			return true
		}
		if r.returns && r.match == always {
			return false
		}
	}
	return false
}

// certainty is whether packets match a rule.
type certainty int

const (
	never certainty = iota
	maybe
	always
)
