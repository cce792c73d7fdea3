package fastpath

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"github.com/coreos/flannel/pkg/nftbatch"
)

// tablePrefix begins the names of our nftables tables, such as
// flannel-fastpath-flannel0. The rest is Config.Name.
const tablePrefix = "flannel-fastpath-"

func markTable(name string) *nftables.Table {
	return &nftables.Table{Name: tablePrefix + name, Family: nftables.TableFamilyIPv4}
}

// mark makes the table whose rules mark the entry of a flow in connection
// tracking (N is the network, S the subnet, D the device, out and in the bits of Marks):
//
//	chain postrouting {
//		type filter hook postrouting priority 2147483647; policy accept;
//		oif D ip saddr S ip daddr N ip daddr != S ct mark and out == 0 ct mark set ct mark or out
//		iif D ip saddr N ip saddr != S ip daddr S ct mark and in == 0 ct mark set ct mark or in
//	}
//
// D is in the rules because rules of the host may drop packets from D. Without it, a
// container could open the way for them: it would forge the address of another host's
// container. There are both rules for each outer interface D.
//
// A packet that reaches the rules has passed all others of the host. The rules also turn
// on connection tracking (nf_ct_netns_get in net/netfilter/nf_conntrack_proto.c). mark
// changes nothing if the table is complete. It runs in the network namespace of the path.
func mark(config Config, outer []int) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("make rules of fast path: %w", err)
	}
	t := markTable(config.Name)
	chain := &nftables.Chain{
		Name: "postrouting", Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityLast,
	}
	var rules [][]expr.Any
	for _, device := range outer {
		rules = append(rules, config.markRules(device)...)
	}
	version := fmt.Append(nil, config.Network, config.Subnet, config.Marks, outer)
	// An error says that there is no such table or chain.
	have, err := c.GetRules(t, chain)
	other := func(r *nftables.Rule) bool { return !bytes.Equal(r.UserData, version) }
	if err == nil && len(have) == len(rules) && !slices.ContainsFunc(have, other) {
		return nil
	}
	c.AddTable(t)
	c.DelTable(t) // an error if it is not there
	c.AddTable(t)
	c.AddChain(chain)
	for _, exprs := range rules {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: exprs, UserData: version})
	}
	if err := nftbatch.Flush(c); err != nil {
		return fmt.Errorf("make rules of fast path: %w", nftbatch.Explain(err, "nf_tables", "nft_ct"))
	}
	return nil
}

// unmark deletes the table that mark has made, if it exists.
func unmark(name string) error {
	if err := nftbatch.Remove(markTable(name)); err != nil {
		return fmt.Errorf("remove rules of fast path: %w", err)
	}
	return nil
}

// ourTable reports whether a table is of a fast path, also of another network.
func ourTable(name string) bool { return strings.HasPrefix(name, tablePrefix) }

// markRules are those of packets by a device.
func (c Config) markRules(device int) [][]expr.Any {
	const source, target = 12, 16 // RFC 791 section 3.1
	within := func(offset uint32, p netip.Prefix) []expr.Any { return compareAddr(offset, expr.CmpOpEq, p) }
	outside := func(offset uint32, p netip.Prefix) []expr.Any { return compareAddr(offset, expr.CmpOpNeq, p) }
	by := func(key expr.MetaKey) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(uint32(device))},
		}
	}
	return [][]expr.Any{
		slices.Concat(by(expr.MetaKeyOIF), within(source, c.Subnet), within(target, c.Network), outside(target, c.Subnet), setMark(c.Marks.Sent)),
		slices.Concat(by(expr.MetaKeyIIF), within(source, c.Network), outside(source, c.Subnet), within(target, c.Subnet), setMark(c.Marks.Received)),
	}
}

// compareAddr compares the address at offset in the IP header.
func compareAddr(offset uint32, op expr.CmpOp, p netip.Prefix) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: net.CIDRMask(p.Bits(), 32), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: p.Addr().AsSlice()},
	}
}

// setMark sets a bit of the entry's mark, unless it is set. A write of the entry would
// invalidate the copies in the caches of other processors.
func setMark(bit uint32) []expr.Any {
	word := binaryutil.NativeEndian.PutUint32
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: word(bit), Xor: word(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: word(0)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: word(^bit), Xor: word(bit)},
		&expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true},
	}
}
