package fastpath

import (
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
)

// A rule with one verdict for all packets of a flow need not see each of them. judge
// finds the other rules that packets of the fast path would meet on the long way.

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
	// outer are the names of the outer interfaces. names are the same, and those of bridges
	// and ports.
	outer, names []string
}

// judge returns the rules that judge or change each packet of a flow, by conntrack state
// of the flow. The rules for all flows include chains behind our own, and rules that
// could set the marks before others have judged a packet.
func judge(rules *hostrules.Ruleset, s scene) map[uint32][]string {
	follow := func(state uint32, opening bool) []string {
		j := &judgement{Ruleset: rules, scene: s, state: state, opening: opening}
		for _, c := range rules.Bases {
			if j.meets(c) {
				j.walk(c, nil)
			}
		}
		return j.found
	}
	all := slices.Concat(follow(stateEstablished, false), follow(stateNew, true))
	for _, c := range rules.Bases {
		if (len(c.Rules) > 0 || c.Drops) && s.behind(c) {
			all = append(all, fmt.Sprintf("chain %v, which comes last", c))
		}
	}
	found := map[uint32][]string{stateEstablished: all, stateNew: follow(stateNew, false)}
	for state, rules := range found {
		slices.Sort(rules)
		found[state] = slices.Compact(rules)
	}
	return found
}

// behind reports whether packets to other hosts pass a base chain after our rule has
// marked their flow. The chain that is added last at a hook and a priority comes first
// (nf_hook_entries_grow in net/netfilter/core.c). Packets that a program redirects at
// the ingress of an interface pass no chain at the egress of another
// (__netif_receive_skb_core in net/core/dev.c sets nf_skip_egress).
func (s scene) behind(c *hostrules.Chain) bool {
	switch c.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet:
		return c.Hook == unix.NF_INET_POST_ROUTING && c.Priority == math.MaxInt32 && !ourTable(c.Table)
	case nftables.TableFamilyNetdev:
		return c.Hook == unix.NF_NETDEV_EGRESS && slices.ContainsFunc(s.outer, c.At)
	}
	return false
}

// judgement follows packets of one state through the chains.
type judgement struct {
	*hostrules.Ruleset
	scene
	state uint32
	// opening packets are the first of their flows. Only rules that overwrite its mark
	// count for them.
	opening bool
	found   []string
}

// meets reports whether packets of the long way pass the hook of a base chain.
// Chains of type nat see the first packet of a flow only (nf_nat_inet_fn in
// net/netfilter/nf_nat_core.c).
func (j *judgement) meets(c *hostrules.Chain) bool {
	if c.Kind == "nat" && !j.opening || ourTable(c.Table) {
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
	return slices.ContainsFunc(j.names, c.At)
}

// walk reports whether all packets end there: accepted or dropped.
func (j *judgement) walk(c *hostrules.Chain, from []*hostrules.Chain) bool {
	if slices.Contains(from, c) {
		return false
	}
	from = append(from, c)
	for _, exprs := range c.Rules {
		r := rule{judgement: j, chain: c, loaded: make(map[uint32]symbol), match: always}
		for _, e := range exprs {
			if r.add(e); r.match == never {
				break
			}
		}
		if r.match == never {
			continue
		}
		reason := r.perPacket
		if j.opening {
			reason = r.overwrites
		}
		if reason != "" {
			j.found = append(j.found, fmt.Sprintf("rule %q in chain %v", reason, c))
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
