package fastpath

import (
	"encoding/binary"
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
		if info.Option != 0 {
			r.each("tcp option")
		}
		if info.FlagsMask == 0 {
			return
		}
		same := r.flagsMatch([]byte{info.FlagsMask}, []byte{info.FlagsCmp})
		if info.InvFlags&xt.TcpInvFlags != 0 {
			same = always - same
		}
		r.match = min(r.match, same)
	default:
		r.weaken()
		// struct xt_connmark_mtinfo1 of linux/netfilter/xt_connmark.h: mark, mask
		b, _ := v.Info.(*xt.Unknown)
		if b != nil && v.Name == "connmark" && len(*b) >= 8 && !r.hasMarks((*b)[4:8]) {
			return
		}
		if b != nil && v.Name == "set" && countsMatter(*b) {
			r.each("set with counters")
		}
		if !slices.Contains(constantMatches, v.Name) {
			r.each(v.Name)
		}
	}
}

// countsMatter reports whether a match of an ipset compares the counters of an element
// (struct xt_set_info_match_v3 and _v4 of linux/netfilter/xt_set.h: a set of 4 bytes,
// two comparisons of 16 bytes from byte 8 on).
func countsMatter(info []byte) bool {
	return len(info) >= 40 && slices.ContainsFunc(info[8:40], func(b byte) bool { return b != 0 })
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
	case "CONNMARK":
		r.each(v.Name)
		r.xtConnmark(v)
	default:
		if !slices.Contains(constantTargets, v.Name) {
			r.each(v.Name)
		}
	}
}

// xtConnmark decodes struct xt_connmark_tginfo1 and _tginfo2 of
// linux/netfilter/xt_connmark.h. Both have the value, its mask, the mask of the packet's
// mark, and a mode. The second has direction and width of a shift before the mode.
func (r *rule) xtConnmark(v *expr.Target) {
	const value, packetMask, shift = 0, 8, 13
	const set, save = 0, 1
	mode := 12
	if v.Rev >= 2 {
		mode = 14
	}
	b, ok := v.Info.(*xt.Unknown)
	switch {
	case !ok || len(*b) <= mode || v.Rev >= 2 && (*b)[shift] != 0:
		r.overwrite(v.Name, allBits)
	case (*b)[mode] == set:
		r.overwrite(v.Name, binary.NativeEndian.Uint32((*b)[value:]))
	case (*b)[mode] == save:
		r.overwrite(v.Name, binary.NativeEndian.Uint32((*b)[packetMask:]))
	}
}
