package fastpath

import (
	"slices"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
)

// constantMatches are matches of iptables that say the same of all packets of a
// flow.
var constantMatches = []string{
	"addrtype", "ah", "cgroup", "comment", "connlabel", "devgroup", "esp", "helper", "icmp",
	"iprange", "mac", "mark", "multiport", "owner", "physdev", "pkttype", "policy", "realm", "rpfilter",
	"sctp", "set", "udp",
}

func (r *rule) xtMatch(v *expr.Match) {
	switch info := v.Info.(type) {
	case *xt.ConntrackMtinfo3:
		r.xtConntrack(info.MatchFlags, info.InvertFlags, uint32(info.StateMask))
	case *xt.ConntrackMtinfo2:
		r.xtConntrack(info.MatchFlags, info.InvertFlags, uint32(info.StateMask))
	case *xt.ConntrackMtinfo1:
		r.xtConntrack(info.MatchFlags, info.InvertFlags, uint32(info.StateMask))
	case *xt.Tcp:
		r.weaken()
		if same := flagsMatch([]byte{info.FlagsMask}, []byte{info.FlagsCmp}); info.FlagsMask != 0 && info.InvFlags&xt.TcpInvFlags == 0 {
			r.match = min(r.match, same)
		}
	default:
		r.weaken()
		// struct xt_connmark_mtinfo1 of linux/netfilter/xt_connmark.h: mark, mask
		if b, ok := v.Info.(*xt.Unknown); ok && v.Name == "connmark" && len(*b) >= 8 && !r.hasMarks((*b)[4:8]) {
			return
		}
		if !slices.Contains(constantMatches, v.Name) {
			r.each(v.Name)
		}
	}
}

func (r *rule) xtConntrack(flags, inverted uint16, states uint32) {
	if flags&uint16(xt.ConntrackExpires) != 0 {
		r.each("conntrack expires")
	}
	if flags&^uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0 {
		r.weaken()
	}
	if flags&uint16(xt.ConntrackState|xt.ConntrackStateAlias) == 0 {
		return
	}
	if (states&r.state != 0) == (inverted&uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0) {
		r.match = never
	}
}

// constantTargets are targets of iptables whose effect the fast path keeps, or
// that make the flow's packets take the long way.
var constantTargets = []string{"CT", "DNAT", "MASQUERADE", "NETMAP", "NOTRACK", "REDIRECT", "REJECT", "SNAT", "TRACE"}

func (r *rule) xtTarget(v *expr.Target) {
	switch v.Name {
	case "REJECT":
		r.ends = true
	default:
		if !slices.Contains(constantTargets, v.Name) {
			r.each(v.Name)
		}
	}
}
