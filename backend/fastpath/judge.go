package fastpath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
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
func (r *ruleset) judge(s scene) map[uint32][]string {
	found := make(map[uint32][]string)
	for _, state := range []uint32{stateEstablished, stateNew} {
		j := &judgement{ruleset: r, scene: s, state: state}
		for _, c := range r.bases {
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
	*ruleset
	scene
	state uint32
	found []string
}

// meets reports whether packets of the long way pass the hook of a base chain.
// Chains of type nat see the first packet of a flow only (nf_nat_inet_fn in
// net/netfilter/nf_nat_core.c).
func (j *judgement) meets(c *chain) bool {
	if c.kind == "nat" {
		return false
	}
	switch c.family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet:
		return c.hook == unix.NF_INET_PRE_ROUTING || c.hook == unix.NF_INET_FORWARD ||
			c.hook == unix.NF_INET_POST_ROUTING || j.onDevice(c)
	case nftables.TableFamilyBridge:
		return c.hook != unix.NF_INET_FORWARD
	case nftables.TableFamilyNetdev:
		return j.onDevice(c)
	}
	return false
}

func (j *judgement) onDevice(c *chain) bool {
	return slices.ContainsFunc(c.devices, func(d string) bool { return slices.Contains(j.names, d) })
}

// walk reports whether all packets end there: accepted or dropped.
func (j *judgement) walk(c *chain, from []*chain) bool {
	if slices.Contains(from, c) {
		return false
	}
	from = append(from, c)
	for _, exprs := range c.rules {
		r := rule{judgement: j, family: c.family, loaded: make(map[uint32]symbol), match: always}
		for _, e := range exprs {
			if r.add(e); r.match == never {
				break
			}
		}
		if r.match == never {
			continue
		}
		if r.perPacket != "" {
			j.found = append(j.found, fmt.Sprintf("rule %q in %v", r.perPacket, c))
		}
		end := r.ends
		for _, name := range r.targets(c) {
			if target := j.chains[chainKey{c.family, c.table, name}]; target != nil && j.walk(target, from) {
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

// symbol is what a register of nftables holds.
type symbol struct {
	kind symbolKind
	mask []byte // nil: all bits
}

type symbolKind int

const (
	constant symbolKind = iota // the same for all packets of a flow
	varying
	address // of source or target
	protocol
	tcpFlags
	connState
	connMark
	interfaceName
	family
)

// rule is the interpretation of one rule.
type rule struct {
	*judgement
	family nftables.TableFamily
	loaded map[uint32]symbol
	match  certainty
	// perPacket names the expression that judges or changes each packet.
	perPacket string
	ends      bool   // the verdict is to accept or drop
	returns   bool   // the verdict is to return
	jump      string // the verdict is to go on there
	anywhere  bool   // a verdict map: to go on in any chain of the table
}

func (r *rule) targets(c *chain) []string {
	if r.jump != "" {
		return []string{r.jump}
	}
	var names []string
	if r.anywhere {
		for key, other := range r.chains {
			if key.family == c.family && key.table == c.table && other.kind == "" {
				names = append(names, key.name)
			}
		}
	}
	return names
}

func (r *rule) add(e expression) {
	decode := func(into expr.Any) bool {
		if expr.Unmarshal(byte(r.family), e.data, into) == nil {
			return true
		}
		r.each(e.name)
		return false
	}
	switch e.name {
	case "payload":
		if v := new(expr.Payload); decode(v) {
			r.payload(v)
		}
	case "meta":
		if v := new(expr.Meta); decode(v) {
			r.meta(v)
		}
	case "ct":
		if v := new(expr.Ct); decode(v) {
			r.conntrack(v)
		}
	case "bitwise":
		if v := new(expr.Bitwise); decode(v) {
			s := r.loaded[v.SourceRegister]
			if s.kind == connMark && !r.hasMarks(v.Mask) {
				s.kind = constant
			}
			if s.mask != nil || len(bytes.Trim(v.Xor, "\x00")) > 0 || len(v.Mask) == 0 {
				s.kind = min(s.kind, varying)
			}
			s.mask = v.Mask
			r.loaded[v.DestRegister] = s
		}
	case "cmp":
		if v := new(expr.Cmp); decode(v) {
			r.compare(v)
		}
	case "lookup":
		if v := new(expr.Lookup); decode(v) {
			r.use(r.loaded[v.SourceRegister], "set")
			r.anywhere = r.anywhere || v.IsDestRegSet && v.DestRegister == unix.NFT_REG_VERDICT
		}
	case "immediate":
		r.verdict(e)
	case "match":
		if v := new(expr.Match); decode(v) {
			r.xtMatch(v)
		}
	case "target":
		if v := new(expr.Target); decode(v) {
			r.xtTarget(v)
		}
	case "range", "byteorder", "hash", "fib", "rt", "xfrm", "socket", "osf":
		for _, s := range r.loaded {
			r.use(s, e.name)
		}
		r.weaken()
	case "counter", "reject", "flow_offload", "notrack", "masq", "nat", "redir":
	default:
		r.each(e.name)
	}
}

// each notes that an expression judges or changes each packet.
func (r *rule) each(name string) {
	if r.perPacket == "" {
		r.perPacket = name
	}
}

func (r *rule) weaken() {
	if r.match == always {
		r.match = maybe
	}
}

// use notes a comparison with something that is not known.
func (r *rule) use(s symbol, name string) {
	r.weaken()
	if s.kind == varying {
		r.each(name)
	}
}

func (r *rule) payload(v *expr.Payload) {
	if v.OperationType == expr.PayloadWrite {
		r.each("payload set")
		return
	}
	s := symbol{kind: varying}
	const ipProtocol, ipSource, ipTarget, ports, flags = 9, 12, 16, 4, 13 // RFC 791 section 3.1, RFC 9293 section 3.1
	switch {
	case v.Base == expr.PayloadBaseLLHeader:
		s.kind = constant
	case v.Base == expr.PayloadBaseNetworkHeader && (v.Offset == ipSource || v.Offset == ipTarget) && v.Len <= 4:
		s.kind = address
	case v.Base == expr.PayloadBaseNetworkHeader && v.Offset >= ipSource && v.Offset+v.Len <= ipTarget+4:
		s.kind = constant
	case v.Base == expr.PayloadBaseNetworkHeader && v.Offset == ipProtocol && v.Len == 1:
		s.kind = protocol
	case v.Base == expr.PayloadBaseTransportHeader && v.Offset+v.Len <= ports:
		s.kind = constant
	case v.Base == expr.PayloadBaseTransportHeader && v.Offset == flags && v.Len == 1:
		s.kind = tcpFlags
	}
	r.loaded[v.DestRegister] = s
}

// Of enum nft_meta_keys, linux/netfilter/nf_tables.h. Times are the first keys
// from metaTimes on that differ between packets; later kernels add keys behind.
const (
	metaTimes    = 30 // NFT_META_TIME_NS
	metaSDIF     = 33
	metaSDIFName = 34
)

func (r *rule) meta(v *expr.Meta) {
	if v.SourceRegister {
		if v.Key != expr.MetaKeyNFTRACE {
			r.each("meta set")
		}
		return
	}
	s := symbol{kind: constant}
	switch v.Key {
	case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME:
		s.kind = interfaceName
	case expr.MetaKeyL4PROTO:
		s.kind = protocol
	case expr.MetaKeyNFPROTO:
		s.kind = family
	case expr.MetaKeyLEN, expr.MetaKeyPRANDOM, expr.MetaKeyCPU:
		s.kind = varying
	}
	if v.Key >= metaTimes && v.Key != metaSDIF && v.Key != metaSDIFName {
		s.kind = varying
	}
	r.loaded[v.Register] = s
}

func (r *rule) conntrack(v *expr.Ct) {
	if v.Register == unix.NFT_REG_VERDICT { // a register is read, which expr.Ct does not have
		r.each("ct set")
		return
	}
	s := symbol{kind: constant}
	switch v.Key {
	case expr.CtKeySTATE:
		s.kind = connState
	case expr.CtKeyMARK:
		s.kind = connMark
	case expr.CtKeyEXPIRATION, expr.CtKeyPKTS, expr.CtKeyBYTES, expr.CtKeyAVGPKT:
		s.kind = varying
	}
	r.loaded[v.Register] = s
}

// compare excludes rules for other packets.
func (r *rule) compare(v *expr.Cmp) {
	s := r.loaded[v.Register]
	equal := v.Op == expr.CmpOpEq
	if !equal && v.Op != expr.CmpOpNeq {
		r.use(s, "comparison")
		return
	}
	var same certainty
	switch s.kind {
	case address:
		same = r.inNetwork(s.mask, v.Data)
	case protocol:
		same = certaintyOf(s.mask != nil || len(v.Data) != 1 || v.Data[0] == unix.IPPROTO_TCP || v.Data[0] == unix.IPPROTO_UDP)
	case tcpFlags:
		same = flagsMatch(s.mask, v.Data)
	case connState:
		same = r.stateMatch(s.mask, v.Data)
	case interfaceName:
		same = certaintyOf(slices.ContainsFunc(r.names, func(name string) bool { return nameMatches(v.Data, name) }))
	case connMark:
		r.each("ct mark")
		same = maybe
	case family:
		same = never
		if len(v.Data) == 1 && v.Data[0] == unix.NFPROTO_IPV4 {
			same = always
		}
	default:
		r.use(s, "comparison")
		return
	}
	if !equal {
		same = always - same
	}
	r.match = min(r.match, same)
}

// hasMarks reports whether a mask takes in bits that the programs set. A rule
// would see them.
func (r *rule) hasMarks(mask []byte) bool {
	return len(mask) != 4 || binary.NativeEndian.Uint32(mask)&(r.marks.Sent|r.marks.Received) != 0
}

// certaintyOf is maybe or never.
func certaintyOf(possible bool) certainty {
	if possible {
		return maybe
	}
	return never
}

// inNetwork compares an address of the network, of which no more is known.
func (r *rule) inNetwork(mask, data []byte) certainty {
	n := r.network.Addr().As4()
	for i := range min(len(data), len(n)) {
		known := ^byte(0) << max(0, min(8, 8*(i+1)-r.network.Bits()))
		if mask != nil && i < len(mask) {
			known &= mask[i]
		}
		if (n[i]^data[i])&known != 0 {
			return never
		}
	}
	if ones := prefixLen(mask, len(data)); ones <= r.network.Bits() {
		return always
	}
	return maybe
}

func prefixLen(mask []byte, bytes int) int {
	if mask == nil {
		return 8 * bytes
	}
	last := 0
	for i, b := range mask {
		for bit := range 8 {
			if b&(0x80>>bit) != 0 {
				last = 8*i + bit + 1
			}
		}
	}
	return last
}

// flagsMatch compares the flags of a packet amid a TCP flow: ACK, perhaps PSH,
// and the bits of ECN.
func flagsMatch(mask, data []byte) certainty {
	const ack, known = 0x10, 0x37 // FIN, SYN, RST, ACK, URG
	if len(data) != 1 {
		return maybe
	}
	m := byte(0xff)
	if len(mask) == 1 {
		m = mask[0]
	}
	if (data[0]^ack)&known&m != 0 {
		return never
	}
	if m&^known == 0 {
		return always
	}
	return maybe
}

func (r *rule) stateMatch(mask, data []byte) certainty {
	if len(data) != 4 {
		return maybe
	}
	state := r.state
	if len(mask) == 4 {
		state &= binary.NativeEndian.Uint32(mask)
	}
	if state == binary.NativeEndian.Uint32(data) {
		return always
	}
	return never
}

// nameMatches compares as nftables does: a pattern without a final zero is a
// prefix.
func nameMatches(pattern []byte, name string) bool {
	text := string(bytes.TrimRight(pattern, "\x00"))
	if len(text) == len(pattern) && len(pattern) < unix.IFNAMSIZ {
		return strings.HasPrefix(name, text)
	}
	return name == text
}

func (r *rule) verdict(e expression) {
	value, v := new(expr.Immediate), new(expr.Verdict)
	if expr.Unmarshal(byte(r.family), e.data, value) != nil || expr.Unmarshal(byte(r.family), e.data, v) != nil {
		r.each(e.name)
		return
	}
	if value.Register != unix.NFT_REG_VERDICT {
		r.loaded[value.Register] = symbol{kind: constant}
		return
	}
	switch v.Kind {
	case expr.VerdictAccept, expr.VerdictDrop, expr.VerdictStolen:
		r.ends = true
	case expr.VerdictReturn:
		r.returns = true
	case expr.VerdictJump, expr.VerdictGoto:
		r.jump = v.Chain
	case expr.VerdictQueue:
		r.each("queue")
	}
}

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
