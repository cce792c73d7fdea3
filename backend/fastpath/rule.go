package fastpath

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
)

// symbol is what a register of nftables holds.
type symbol struct {
	kind symbolKind
	mask []byte // nil: all bits
	bits uint32 // of a mark's, that may be set
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
	chain  *hostrules.Chain
	loaded map[uint32]symbol
	last   symbol // that was loaded
	match  certainty
	// perPacket names the expression that judges or changes each packet.
	perPacket string
	// overwrites names the expression that may set a bit of the marks.
	overwrites string
	ends       bool   // the verdict is to accept or drop
	returns    bool   // the verdict is to return
	jump       string // the verdict is to go on there
	mapped     bool   // the verdict is looked up in a map
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
		r.lookUp(v)
	case *expr.Immediate:
		r.load(v.Register, symbol{kind: constant, bits: wordOf(v.Data)})
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
		r.useAll(name)
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
	switch s.kind {
	case varying:
		r.each(name)
	case tcpFlags:
		r.each("tcp flags")
	case connMark:
		r.each("ct mark")
	}
}

// useAll notes one with the value of several registers.
func (r *rule) useAll(name string) {
	r.weaken()
	for _, s := range r.loaded {
		r.use(s, name)
	}
}

// lookUp may have the key in several registers.
func (r *rule) lookUp(v *expr.Lookup) {
	r.useAll("set")
	if why := r.Unannounced(r.chain, v.SetName); why != "" {
		r.each("set with " + why)
	}
	if v.IsDestRegSet && v.DestRegister == unix.NFT_REG_VERDICT {
		r.mapped = true
	} else if v.IsDestRegSet {
		r.load(v.DestRegister, symbol{kind: constant, bits: allBits})
	}
}

const allBits = 0xffffffff

// wordOf returns a mark's value, or all bits of what is none.
func wordOf(data []byte) uint32 {
	if len(data) != 4 {
		return allBits
	}
	return binary.NativeEndian.Uint32(data)
}

func (r *rule) load(register uint32, s symbol) {
	r.loaded[register], r.last = s, s
}

func (r *rule) payload(v *expr.Payload) {
	if v.OperationType == expr.PayloadWrite {
		r.each("payload set")
		return
	}
	s := symbol{kind: varying, bits: allBits}
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
	r.load(v.DestRegister, s)
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
	s := symbol{kind: constant, bits: allBits}
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
	r.load(v.Register, s)
}

func (r *rule) conntrack(v *expr.Ct) {
	if v.Register == unix.NFT_REG_VERDICT { // a register is read, which expr.Ct does not have
		r.each("ct set")
		if v.Key == expr.CtKeyMARK {
			r.overwrite("ct mark set", r.last.bits)
		}
		return
	}
	s := symbol{kind: constant, bits: allBits}
	switch v.Key {
	case expr.CtKeySTATE:
		s.kind = connState
	case expr.CtKeyMARK:
		s.kind, s.bits = connMark, 0 // those that are set may stay
	case expr.CtKeyEXPIRATION, expr.CtKeyPKTS, expr.CtKeyBYTES, expr.CtKeyAVGPKT:
		s.kind = varying
	}
	r.load(v.Register, s)
}

// overwrite notes that bits of the entry's mark may be set.
func (r *rule) overwrite(name string, bits uint32) {
	if bits&(r.marks.Sent|r.marks.Received) != 0 {
		r.overwrites = name
	}
}

func (r *rule) bitwise(v *expr.Bitwise) {
	s := r.loaded[v.SourceRegister]
	s.bits = s.bits&wordOf(v.Mask) | wordOf(v.Xor)
	if s.kind == connMark && !r.hasMarks(v.Mask) {
		s.kind = constant
	}
	if s.mask != nil || len(bytes.Trim(v.Xor, "\x00")) > 0 || len(v.Mask) == 0 {
		s.kind = min(s.kind, varying)
	}
	s.mask = v.Mask
	r.load(v.DestRegister, s)
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
