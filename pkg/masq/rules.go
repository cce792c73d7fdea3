package masq

import (
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
)

// foreignMark is the bit that kube-proxy and others set in the mark of a packet
// that they masquerade themselves.
const foreignMark = 0x4000

// register is the register for comparisons: NFT_REG_1.
const register = 1

// addChains queues the table's content, which nft(8) shows as (P is the subnet,
// N the network):
//
//	chain forward {
//		type filter hook forward priority filter - 1; policy accept;
//		ip saddr N counter accept
//		ip daddr N counter accept
//	}
//	chain postrouting {
//		type nat hook postrouting priority srcnat; policy accept;
//		meta mark & 0x4000 == 0x4000 return
//		ip saddr != N ip daddr P return
//		ip saddr N ip daddr EXCLUDED return
//		ip saddr N ip daddr != N ip daddr != 224.0.0.0/4 counter masquerade fully-random
//		ip saddr != N ip daddr N counter masquerade fully-random
//	}
//
// A packet from N to N matches neither masquerade rule and keeps its source. Our
// forward chain is just before those of firewalls: it counts what they drop.
func (r Rules) addChains(c *nftables.Conn, t *nftables.Table) {
	accept := nftables.ChainPolicyAccept
	p, n := r.Subnet.Masked(), r.Network.Masked()

	if !r.NoForward {
		forward := c.AddChain(&nftables.Chain{
			Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Policy: &accept,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityRef(*nftables.ChainPriorityFilter - 1),
		})
		add(c, forward, saddr(n, is), counted(&expr.Verdict{Kind: expr.VerdictAccept}))
		add(c, forward, daddr(n, is), counted(&expr.Verdict{Kind: expr.VerdictAccept}))
	}

	postrouting := c.AddChain(&nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeNAT, Policy: &accept,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	leave := []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	// Without random ports, two connections to one target can race for the same
	// conntrack tuple (iptables' --random-fully).
	hide := counted(&expr.Masq{FullyRandom: !r.OrderedPorts})
	add(c, postrouting, marked(foreignMark), leave)
	add(c, postrouting, saddr(n, isNot), daddr(p, is), leave)
	for _, excluded := range r.Exclude {
		add(c, postrouting, saddr(n, is), daddr(excluded.Masked(), is), leave)
	}
	add(c, postrouting, saddr(n, is), daddr(n, isNot), daddr(multicast(n), isNot), hide)
	add(c, postrouting, saddr(n, isNot), daddr(n, is), hide)
}

func add(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	rule := &nftables.Rule{Table: chain.Table, Chain: chain}
	for _, p := range parts {
		rule.Exprs = append(rule.Exprs, p...)
	}
	c.AddRule(rule)
}

func counted(e expr.Any) []expr.Any { return []expr.Any{&expr.Counter{}, e} }

const (
	is    = expr.CmpOpEq
	isNot = expr.CmpOpNeq
)

func saddr(p netip.Prefix, op expr.CmpOp) []expr.Any {
	if p.Addr().Is4() {
		return addr(12, p, op) // RFC 791, section 3.1
	}
	return addr(8, p, op) // RFC 8200, section 3
}

func daddr(p netip.Prefix, op expr.CmpOp) []expr.Any {
	if p.Addr().Is4() {
		return addr(16, p, op)
	}
	return addr(24, p, op)
}

// addr compares the address at offset in the network header with p.
func addr(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	size := p.Addr().BitLen() / 8
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(size)},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: uint32(size),
			Mask: net.CIDRMask(p.Bits(), size*8), Xor: make([]byte, size),
		},
		&expr.Cmp{Op: op, Register: register, Data: p.Addr().AsSlice()},
	}
}

// marked compares one bit of the packet's mark.
func marked(bit uint32) []expr.Any {
	b := binaryutil.NativeEndian.PutUint32(bit)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: b, Xor: make([]byte, 4)},
		&expr.Cmp{Op: is, Register: register, Data: b},
	}
}

// multicast returns the multicast range of n's family (RFC 5771, RFC 4291). A
// packet to a group must keep its sender's address.
func multicast(n netip.Prefix) netip.Prefix {
	if n.Addr().Is4() {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)
}
