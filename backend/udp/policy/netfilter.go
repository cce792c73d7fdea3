package policy

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// findNetfilter returns the first rule that names our port or a peer's address and
// does something to the packet. It looks at the hooks that the datagrams of a socket
// pass, in the tables of nft and of iptables-nft. A rule that accepts is none: the
// datagrams of the kernel data path need no acceptance. Neither is a rule that names
// no address and no port.
func (r *Reader) findNetfilter(d Datagrams) (string, error) {
	if r.nft == nil {
		return "", nil
	}
	chains, err := r.nft.ListChains()
	if err != nil {
		return "", fmt.Errorf("list nftables chains: %w", err)
	}
	for _, c := range chains {
		if !hooked(c) {
			continue
		}
		s := search{nft: r.nft, Datagrams: d, chains: chains, seen: make(map[*nftables.Chain]bool)}
		s.outgoing = *c.Hooknum == *nftables.ChainHookOutput || *c.Hooknum == *nftables.ChainHookPostrouting
		if rule, err := s.chain(c, false); rule != "" || err != nil {
			return rule, err
		}
	}
	return "", nil
}

// hooked reports whether the datagrams of a socket pass a base chain, and those of
// the kernel data path do not.
func hooked(c *nftables.Chain) bool {
	if c.Hooknum == nil {
		return false
	}
	switch c.Table.Family {
	case nftables.TableFamilyIPv4, nftables.TableFamilyINet:
		return *c.Hooknum != *nftables.ChainHookForward
	case nftables.TableFamilyNetdev: // egress sees the datagrams of both
		return *c.Hooknum == *nftables.ChainHookIngress
	}
	return false
}

// search is a search of the rules of one hook.
type search struct {
	Datagrams
	outgoing bool // the hook's datagrams go to peers, else they come from them
	nft      *nftables.Conn
	chains   []*nftables.Chain
	seen     map[*nftables.Chain]bool
}

// hosts returns the addresses that the datagrams have as source or as destination.
func (s *search) hosts(source bool) []netip.Addr {
	if s.outgoing == source {
		return []netip.Addr{s.Local}
	}
	return s.Peers
}

// chain searches a chain and those that it jumps to. named is true if a rule that
// leads here names our port or a peer.
func (s *search) chain(c *nftables.Chain, named bool) (string, error) {
	if s.seen[c] && !named {
		return "", nil
	}
	s.seen[c] = true
	rules, err := s.nft.GetRules(c.Table, c)
	if err != nil {
		return "", fmt.Errorf("read rules of chain %s: %w", c.Name, err)
	}
	for _, rule := range rules {
		m := match{search: s, named: named}
		for _, e := range rule.Exprs {
			if m.add(c.Table, e); m.never {
				break
			}
		}
		if m.never {
			continue
		}
		if m.named && m.effect != "" {
			return fmt.Sprintf("a rule of the firewall names the datagrams: %s in chain %s of table %s (see: nft list chain %s)",
				m.effect, c.Name, c.Table.Name, c.Name), nil
		}
		for _, target := range s.targets(c.Table, m) {
			if found, err := s.chain(target, m.named); found != "" || err != nil {
				return found, err
			}
		}
	}
	return "", nil
}

// targets returns the chains that a rule may jump to. The library does not decode
// the verdicts of a map: one may be a jump to any chain.
func (s *search) targets(t *nftables.Table, m match) (targets []*nftables.Chain) {
	for _, c := range s.chains {
		if c.Table.Name == t.Name && c.Table.Family == t.Family && (c.Name == m.jump || m.jumps && c.Hooknum == nil) {
			targets = append(targets, c)
		}
	}
	return targets
}

// match is what a rule is for.
type match struct {
	*search
	never  bool   // no datagram matches
	named  bool   // it names our port or a peer
	effect string // what it does; "" if it does nothing
	jump   string // the chain that it jumps to
	jumps  bool   // it may jump to any chain

	loaded *expr.Payload
	meta   expr.MetaKey
	mask   []byte
}

func (m *match) add(t *nftables.Table, e expr.Any) {
	switch e := e.(type) {
	case *expr.Payload:
		if e.OperationType == expr.PayloadWrite {
			m.effect = "changed header"
			return
		}
		m.loaded, m.meta, m.mask = e, 0, nil
	case *expr.Meta:
		m.loaded, m.meta, m.mask = nil, e.Key, nil
		if e.SourceRegister && e.Key != expr.MetaKeyNFTRACE {
			m.effect = "mark"
		}
	case *expr.Bitwise:
		m.mask = e.Mask
	case *expr.Cmp:
		lowest, highest := make([]byte, len(e.Data)), bytes.Repeat([]byte{0xff}, len(e.Data))
		switch e.Op {
		case expr.CmpOpEq, expr.CmpOpNeq:
			m.compare(e.Op == expr.CmpOpEq, e.Data, e.Data)
		case expr.CmpOpGt, expr.CmpOpGte:
			m.compare(true, e.Data, highest)
		case expr.CmpOpLt, expr.CmpOpLte:
			m.compare(true, lowest, e.Data)
		}
	case *expr.Range:
		m.compare(e.Op == expr.CmpOpEq, e.FromData, e.ToData)
	case *expr.Lookup:
		m.lookUp(t, e)
	case *expr.Match:
		m.extension(e)
	case *expr.Verdict:
		m.verdict(e)
	case *expr.Reject, *expr.Queue, *expr.NAT, *expr.Masq, *expr.Redir, *expr.TProxy, *expr.Notrack, *expr.Dup:
		m.effect = fmt.Sprintf("%T", e)[len("*expr."):]
	case *expr.Target:
		if !slices.Contains([]string{"LOG", "NFLOG", "ACCEPT", "TRACE"}, e.Name) {
			m.effect = e.Name
		}
	}
}

func (m *match) verdict(v *expr.Verdict) {
	switch v.Kind {
	case expr.VerdictDrop:
		m.effect = "drop"
	case expr.VerdictJump, expr.VerdictGoto:
		m.jump = v.Chain
	}
}

// values returns the values that the loaded field has in our datagrams, if they are
// known. names is true if a comparison with one names the datagrams.
func (m *match) values() (values [][]byte, names, known bool) {
	switch {
	case m.meta == expr.MetaKeyL4PROTO && m.loaded == nil:
		return [][]byte{{unix.IPPROTO_UDP}}, false, true
	case m.loaded == nil:
		return nil, false, false
	case m.loaded.Base == expr.PayloadBaseTransportHeader && m.loaded.Offset == 2 && m.loaded.Len == 2:
		return [][]byte{binary.BigEndian.AppendUint16(nil, m.Port)}, true, true
	case m.loaded.Base == expr.PayloadBaseNetworkHeader && m.loaded.Offset == 9 && m.loaded.Len == 1:
		return [][]byte{{unix.IPPROTO_UDP}}, false, true
	case m.loaded.Base == expr.PayloadBaseNetworkHeader && (m.loaded.Offset == 12 || m.loaded.Offset == 16):
		for _, a := range m.hosts(m.loaded.Offset == 12) {
			v := a.AsSlice()[:min(m.loaded.Len, 4)]
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
		return
	}
	some, all := false, true
	for _, v := range values {
		inside := len(v) == len(from) && bytes.Compare(v, from) >= 0 && bytes.Compare(v, to) <= 0
		some, all = some || inside, all && inside
	}
	switch {
	case in && !some, !in && all:
		m.never = true
	case names && in:
		m.named = true
	}
}

// lookUp judges the look-up of the loaded field in a set or a verdict map.
func (m *match) lookUp(t *nftables.Table, e *expr.Lookup) {
	values, names, known := m.values()
	m.jumps = m.jumps || e.IsDestRegSet
	if !known || e.Invert {
		return
	}
	set, err := m.nft.GetSetByName(t, e.SetName)
	if err != nil || set.Concatenation {
		return
	}
	elements, err := m.nft.GetSetElements(set)
	if err != nil {
		return
	}
	slices.SortFunc(elements, func(a, b nftables.SetElement) int { return bytes.Compare(a.Key, b.Key) })
	m.never = !slices.ContainsFunc(values, func(v []byte) bool { return holds(elements, v, set.Interval) })
	m.named = m.named || names && !m.never
	if e.IsDestRegSet {
		m.effect = "an entry of a map"
	}
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
		switch inverted := info.InvFlags&xt.UdpInvDestPorts != 0; {
		case inside == inverted:
			m.never = true
		case info.DstPorts != all && !inverted:
			m.named = true
		}
	case *xt.Unknown:
		if e.Name == "multiport" {
			m.multiport(*info)
		}
	}
}

// multiport judges struct xt_multiport_v1: flags, a count, 15 ports, 15 marks of a
// range's begin, an inversion.
func (m *match) multiport(info []byte) {
	const source, size, inverted = 0, 2 + 15*2 + 15 + 1, 2 + 15*2 + 15
	if len(info) < size || info[0] == source || info[inverted] != 0 {
		return
	}
	port := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2+2*i:]) }
	m.never = true
	for i := 0; i < min(int(info[1]), 15); i++ {
		from := port(i)
		if isRange := info[2+15*2+i] != 0; isRange {
			i++
		}
		if i < 15 && from <= m.Port && m.Port <= port(i) {
			m.never, m.named = false, true
		}
	}
}
