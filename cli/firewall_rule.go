package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// decision is what a rule does with datagrams to a UDP port, over IPv4.
type decision struct {
	// matches: it is for some of them at least. named: it compares the port.
	// narrow: it asks for more, such as an address or an interface, so that it
	// may be for some only.
	matches, named, narrow bool
	verdict                expr.VerdictKind
	chain                  string // that a jump or goto leads to
}

// ruleReader reads rules with a port in mind. Those of iptables-nft match and
// reject by extensions of iptables.
type ruleReader struct {
	conn *nftables.Conn
	port uint16
}

// decide follows a rule's expressions.
func (rr ruleReader) decide(r *nftables.Rule) (decision, error) {
	d := decision{matches: true, verdict: expr.VerdictContinue}
	port := binary.BigEndian.AppendUint16(nil, rr.port)
	// What the registers hold, as far as it is the same in all our datagrams.
	registers := make(map[uint32][]byte)
	ask := func(register uint32, yes func(value []byte) bool) {
		switch value := registers[register]; {
		case value == nil:
			d.narrow = true
		case !yes(value):
			d.matches = false
		}
		d.named = d.named || bytes.Equal(registers[register], port)
	}
	for _, e := range r.Exprs {
		switch e := e.(type) {
		case *expr.Meta:
			registers[e.Register] = map[expr.MetaKey][]byte{
				expr.MetaKeyL4PROTO: {unix.IPPROTO_UDP}, expr.MetaKeyNFPROTO: {unix.NFPROTO_IPV4},
			}[e.Key]
		case *expr.Payload:
			registers[e.DestRegister] = nil
			switch {
			case e.Base == expr.PayloadBaseTransportHeader && e.Offset == 2 && e.Len == 2:
				registers[e.DestRegister] = port
			case e.Base == expr.PayloadBaseNetworkHeader && e.Offset == 9 && e.Len == 1: // RFC 791
				registers[e.DestRegister] = []byte{unix.IPPROTO_UDP}
			}
		case *expr.Cmp:
			ask(e.Register, func(value []byte) bool { return compares(e.Op, bytes.Compare(value, e.Data)) })
		case *expr.Range:
			ask(e.Register, func(value []byte) bool {
				within := bytes.Compare(value, e.FromData) >= 0 && bytes.Compare(value, e.ToData) <= 0
				return within == (e.Op == expr.CmpOpEq)
			})
		case *expr.Lookup:
			if e.IsDestRegSet { // a map; what it leads to the library does not read
				d.narrow = true
				break
			}
			holds, err := rr.holds(r.Table, e.SetName, registers[e.SourceRegister])
			if err != nil {
				return d, err
			}
			ask(e.SourceRegister, func([]byte) bool { return holds != e.Invert })
		case *expr.Match:
			rr.match(e, &d)
		case *expr.Limit, *expr.Connlimit, *expr.Quota:
			d.narrow = true
		case *expr.Target:
			if e.Name == "REJECT" {
				d.verdict = expr.VerdictDrop
			}
		case *expr.Reject:
			d.verdict = expr.VerdictDrop
		case *expr.Verdict:
			d.verdict, d.chain = e.Kind, e.Chain
		case *expr.Counter, *expr.Log:
		default: // it may load something else
			clear(registers)
		}
	}
	return d, nil
}

func compares(op expr.CmpOp, order int) bool {
	switch op {
	case expr.CmpOpEq:
		return order == 0
	case expr.CmpOpNeq:
		return order != 0
	case expr.CmpOpLt:
		return order < 0
	case expr.CmpOpLte:
		return order <= 0
	case expr.CmpOpGt:
		return order > 0
	}
	return order >= 0
}

// holds asks a set for a value as the kernel does: one of intervals has an
// element where an interval starts, and one behind its end.
func (rr ruleReader) holds(t *nftables.Table, name string, value []byte) (bool, error) {
	if value == nil {
		return false, nil
	}
	set, err := rr.conn.GetSetByName(t, name)
	if err != nil {
		return false, fmt.Errorf("look up set %s: %w", name, err)
	}
	elements, err := rr.conn.GetSetElements(set)
	if err != nil {
		return false, fmt.Errorf("read set %s: %w", name, err)
	}
	var below nftables.SetElement
	for _, e := range elements {
		order := bytes.Compare(e.Key, value)
		if order == 0 && !e.IntervalEnd {
			return true, nil
		}
		// Where one interval ends, the next may start.
		nearer := bytes.Compare(e.Key, below.Key)
		if set.Interval && order <= 0 && (nearer > 0 || nearer == 0 && below.IntervalEnd) {
			below = e
		}
	}
	return below.Key != nil && !below.IntervalEnd, nil
}

// match reads an extension of iptables.
func (rr ruleReader) match(e *expr.Match, d *decision) {
	ask := func(yes bool) { d.matches, d.named = d.matches && yes, true }
	switch info := e.Info.(type) {
	case *xt.Comment:
	case *xt.Udp:
		d.narrow = d.narrow || info.SrcPorts != [2]uint16{0, 0xffff} || info.InvFlags&xt.UdpInvSrcPorts != 0
		if info.DstPorts != [2]uint16{0, 0xffff} {
			within := info.DstPorts[0] <= rr.port && rr.port <= info.DstPorts[1]
			ask(within != (info.InvFlags&xt.UdpInvDestPorts != 0))
		}
	case *xt.Unknown:
		if ports, invert, ok := multiport(e, *info); ok {
			ask(ports(rr.port) != invert)
			return
		}
		d.narrow = true
	default:
		d.narrow = true
	}
}

// multiport reads struct xt_multiport_v1 (linux/netfilter/xt_multiport.h), where
// it is about destinations.
func multiport(e *expr.Match, info []byte) (holds func(port uint16) bool, invert, ok bool) {
	const (
		most        = 15 // XT_MULTI_PORTS
		ports       = 2  // after flags and count
		ranges      = ports + 2*most
		inverted    = ranges + most
		destination = 1 // XT_MULTIPORT_DESTINATION
	)
	if e.Name != "multiport" || e.Rev != 1 || len(info) <= inverted || info[0] != destination || info[1] > most {
		return nil, false, false
	}
	return func(port uint16) bool {
		for i := 0; i < int(info[1]); i++ {
			first := binary.NativeEndian.Uint16(info[ports+2*i:])
			last := first
			if info[ranges+i] != 0 && i+1 < most { // the next port is the range's last
				i++
				last = binary.NativeEndian.Uint16(info[ports+2*i:])
			}
			if first <= port && port <= last {
				return true
			}
		}
		return false
	}, info[inverted] != 0, true
}
