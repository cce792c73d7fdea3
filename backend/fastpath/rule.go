package fastpath

import (
	"bytes"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
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
	loaded map[uint32]symbol
	match  certainty
	// perPacket names the expression that judges or changes each packet.
	perPacket string
	ends      bool   // the verdict is to accept or drop
	returns   bool   // the verdict is to return
	jump      string // the verdict is to go on there
	mapped    bool   // the verdict is looked up in a map
}

func (r *rule) add(e hostrules.Expression) {
	switch v := e.Value.(type) {
	case *expr.Payload:
		r.payload(v)
	case *expr.Meta:
		r.meta(v)
	case *expr.Ct:
		r.conntrack(v)
	case *expr.Bitwise:
		r.bitwise(v)
	case *expr.Cmp:
		r.compare(v)
	case *expr.Lookup:
		r.use(r.loaded[v.SourceRegister], "set")
		r.mapped = r.mapped || v.IsDestRegSet && v.DestRegister == unix.NFT_REG_VERDICT
	case *expr.Immediate:
		r.loaded[v.Register] = symbol{kind: constant}
	case *expr.Verdict:
		r.verdict(v)
	case *expr.Match:
		r.xtMatch(v)
	case *expr.Target:
		r.xtTarget(v)
	default:
		r.other(e.Name)
	}
}

// other judges an expression by its name.
func (r *rule) other(name string) {
	switch name {
	case "range", "byteorder", "hash", "fib", "rt", "xfrm", "socket", "osf":
		for _, s := range r.loaded {
			r.use(s, name)
		}
		r.weaken()
	case "counter", "reject", "flow_offload", "notrack", "masq", "nat", "redir":
	default:
		r.each(name)
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

func (r *rule) bitwise(v *expr.Bitwise) {
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

func (r *rule) verdict(v *expr.Verdict) {
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
