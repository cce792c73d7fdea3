package hostrules

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// match is what a rule is for.
type match struct {
	*search
	route
	never   bool   // no datagram matches
	effect  string // what it does; "" if it does nothing
	drops   bool   // the effect is to drop or to reject
	accepts bool
	leaves  bool   // the datagrams go no further in the chain
	jump    string // the chain that it jumps to
	mapped  bool   // it looks the verdict up in a map

	loaded *expr.Payload
	meta   expr.MetaKey
	mask   []byte
}

func (m *match) add(c *Chain, e Expression) {
	switch v := e.Value.(type) {
	case *expr.Payload:
		if v.OperationType == expr.PayloadWrite {
			m.effect = "changed header"
			return
		}
		m.loaded, m.meta, m.mask = v, 0, nil
	case *expr.Meta:
		m.loaded, m.meta, m.mask = nil, v.Key, nil
		if v.SourceRegister && v.Key != expr.MetaKeyNFTRACE {
			m.effect = "mark"
		}
	case *expr.Ct:
		m.loaded, m.meta, m.mask = nil, 0, nil
	case *expr.Bitwise:
		m.mask = v.Mask
	case *expr.Cmp:
		lowest, highest := make([]byte, len(v.Data)), bytes.Repeat([]byte{0xff}, len(v.Data))
		switch v.Op {
		case expr.CmpOpEq, expr.CmpOpNeq:
			m.compare(v.Op == expr.CmpOpEq, v.Data, v.Data)
		case expr.CmpOpGt, expr.CmpOpGte:
			m.compare(true, v.Data, highest)
		case expr.CmpOpLt, expr.CmpOpLte:
			m.compare(true, lowest, v.Data)
		}
	case *expr.Range:
		m.compare(v.Op == expr.CmpOpEq, v.FromData, v.ToData)
	case *expr.Lookup:
		m.lookUp(c, v)
	case *expr.Match:
		m.extension(v)
	case *expr.Verdict:
		m.verdict(v)
	case *expr.Target:
		m.target(v.Name)
	default:
		m.other(e.Name)
	}
}

// other judges an expression that is not decoded. Most are conditions.
func (m *match) other(name string) {
	switch name {
	case "reject":
		m.effect, m.drops = name, true
	case "queue", "nat", "masq", "redir", "tproxy", "notrack", "dup", "fwd":
		m.effect = name
	case "counter", "log", "immediate":
	default:
		m.loaded, m.meta, m.mask, m.all = nil, 0, nil, false
	}
}

func (m *match) target(name string) {
	if !slices.Contains([]string{"LOG", "NFLOG", "ACCEPT", "TRACE"}, name) {
		m.effect, m.drops = name, name == "REJECT"
	}
}

func (m *match) verdict(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictDrop:
		m.effect, m.drops = "drop", true
	case expr.VerdictJump:
		m.jump = v.Chain
	case expr.VerdictGoto:
		m.jump, m.leaves = v.Chain, true
	case expr.VerdictAccept:
		m.accepts, m.leaves = true, true
	case expr.VerdictReturn:
		m.leaves = true
	}
}

// fields are the places of fields in a header, by family, and the family's number in
// netfilter.
var fields = [...]struct {
	protocol, source, destination uint32
	nfproto                       byte
}{
	inet.IPv4: {9, 12, 16, unix.NFPROTO_IPV4},
	inet.IPv6: {6, 8, 24, unix.NFPROTO_IPV6},
}

// values returns the values of the loaded field in our datagrams, if they are known.
// names is true if a comparison with one names the datagrams.
func (m *match) values() (values [][]byte, names, known bool) {
	at := fields[m.family()]
	switch {
	case m.meta == expr.MetaKeyNFPROTO && m.loaded == nil:
		return [][]byte{{at.nfproto}}, false, true
	case m.meta == expr.MetaKeyL4PROTO && m.loaded == nil:
		return [][]byte{{unix.IPPROTO_UDP}}, false, true
	case m.loaded == nil:
		return nil, false, false
	case m.loaded.Base == expr.PayloadBaseTransportHeader && m.loaded.Offset == 2 && m.loaded.Len == 2:
		return [][]byte{binary.BigEndian.AppendUint16(nil, m.Port)}, true, true
	case m.loaded.Base == expr.PayloadBaseNetworkHeader && m.loaded.Offset == at.protocol && m.loaded.Len == 1:
		return [][]byte{{unix.IPPROTO_UDP}}, false, true
	case m.loaded.Base == expr.PayloadBaseNetworkHeader && (m.loaded.Offset == at.source || m.loaded.Offset == at.destination):
		for _, a := range m.hosts(m.loaded.Offset == at.source) {
			v := a.AsSlice()
			v = v[:min(int(m.loaded.Len), len(v))]
			for i := range min(len(m.mask), len(v)) {
				v[i] &= m.mask[i]
			}
			values = append(values, v)
		}
		return values, true, true
	}
	return nil, false, false
}

// compare judges a comparison of the loaded field with a range, or with what is
// outside of it.
func (m *match) compare(in bool, from, to []byte) {
	values, names, known := m.values()
	if !known {
		m.all, m.never = false, in && m.loopback(from)
		return
	}
	some, all := false, true
	for _, v := range values {
		inside := len(v) == len(from) && bytes.Compare(v, from) >= 0 && bytes.Compare(v, to) <= 0
		some, all = some || inside, all && inside
	}
	m.judge(in && some || !in && !all, in && all || !in && !some, names && in)
}

// judge notes whether some or all datagrams fulfil a condition, and whether it names
// them.
func (m *match) judge(some, all, names bool) {
	m.never = !some
	m.all = m.all && all
	m.named = m.named || names && some
}

// loopback reports whether an interface is compared with the loopback device, which
// no datagram of a peer passes.
func (m *match) loopback(value []byte) bool {
	switch m.meta {
	case expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME:
		return string(bytes.TrimRight(value, "\x00")) == "lo"
	case expr.MetaKeyIIF, expr.MetaKeyOIF:
		const index = 1 // LOOPBACK_IFINDEX, net/flow.h
		return len(value) == 4 && binary.NativeEndian.Uint32(value) == index
	}
	return false
}

// lookUp judges the look-up of the loaded field in a set or a verdict map. The
// verdicts of a map are not decoded.
func (m *match) lookUp(c *Chain, e *expr.Lookup) {
	m.mapped = m.mapped || e.IsDestRegSet
	values, names, known := m.values()
	if !known || e.Invert {
		m.all = false
		return
	}
	elements, interval, err := m.elements(c, e.SetName)
	if err != nil {
		m.all = false
		return
	}
	inside := func(v []byte) bool { return holds(elements, v, interval) }
	outside := func(v []byte) bool { return !inside(v) }
	m.judge(slices.ContainsFunc(values, inside), !slices.ContainsFunc(values, outside), names)
	if e.IsDestRegSet {
		m.effect = "an entry of a map"
	}
}

// elements returns the elements of a set in their order.
func (r *Reader) elements(c *Chain, set string) (all []nftables.SetElement, interval bool, err error) {
	s, err := r.sets.GetSetByName(&nftables.Table{Name: c.Table, Family: c.Family}, set)
	if err != nil {
		return nil, false, err
	}
	if s.Concatenation {
		return nil, false, errors.ErrUnsupported
	}
	if all, err = r.sets.GetSetElements(s); err != nil {
		return nil, false, err
	}
	slices.SortFunc(all, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	return all, s.Interval, nil
}

// holds reports whether the sorted elements of a set hold a value. An interval ends
// at an element with a flag.
func holds(elements []nftables.SetElement, v []byte, interval bool) bool {
	inside := false
	for _, e := range elements {
		order := bytes.Compare(e.Key, v)
		if order > 0 {
			break
		}
		inside = !e.IntervalEnd && (interval || order == 0)
	}
	return inside
}

// extension judges a match of iptables. Its ports are in the host's byte order.
func (m *match) extension(e *expr.Match) {
	switch info := e.Info.(type) {
	case *xt.Udp:
		all := [2]uint16{0, 0xffff}
		inside := info.DstPorts[0] <= m.Port && m.Port <= info.DstPorts[1]
		inverted := info.InvFlags&xt.UdpInvDestPorts != 0
		m.judge(inside != inverted, inside != inverted && info.SrcPorts == all, info.DstPorts != all && !inverted)
	case *xt.Unknown:
		if e.Name == "multiport" {
			m.multiport(*info)
			return
		}
		m.all = m.all && e.Name == "comment"
	default:
		m.all = m.all && e.Name == "comment"
	}
}

// multiport judges struct xt_multiport_v1: flags, a count, 15 ports, 15 marks of a
// range's begin, an inversion.
func (m *match) multiport(info []byte) {
	const source, size, inverted = 0, 2 + 15*2 + 15 + 1, 2 + 15*2 + 15
	if len(info) < size || info[0] == source || info[inverted] != 0 {
		m.all = false
		return
	}
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2+2*i:]) }
	inside := false
	for i := 0; i < min(int(info[1]), 15); i++ {
		from := port(i)
		if isRange := info[2+15*2+i] != 0; isRange {
			i++
		}
		inside = inside || i < 15 && from <= m.Port && m.Port <= port(i)
	}
	m.judge(inside, inside, true)
}
