package hostrules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/nftbatch"
)

// Ruleset is the content of nftables. It is decoded here, since google/nftables
// passes over expressions that it does not know, such as tproxy.
type Ruleset struct {
	Bases  []*Chain // chains with a hook, in no order
	chains map[key]*Chain
	sets   map[key]set
}

type key struct {
	Family nftables.TableFamily
	Table  string
	Name   string
}

// Chain is a chain of nftables.
type Chain struct {
	key
	Hook     uint32
	Priority int32
	Kind     string   // filter, nat or route; empty for a chain without a hook
	Drops    bool     // the policy
	devices  []string // of family netdev; see At
	Rules    [][]Expression
}

// String returns the chain's family, table and name as nft(8) takes them.
func (c *Chain) String() string {
	return fmt.Sprintf("%s %s %s", familyNames[c.Family], c.Table, c.Name)
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6", nftables.TableFamilyINet: "inet",
	nftables.TableFamilyARP: "arp", nftables.TableFamilyBridge: "bridge", nftables.TableFamilyNetdev: "netdev",
}

// Expression is a part of a rule.
type Expression struct {
	Name  string
	Value expr.Any // nil if it is not decoded
}

// Constants of linux/netfilter/nf_tables.h and nfnetlink.h that x/sys/unix lacks.
const (
	nftaHookDevs     = 4 // NFTA_HOOK_DEVS
	nftaDevicePrefix = 2 // NFTA_DEVICE_PREFIX of Linux 6.18
	nfgenmsgLen      = 4 // struct nfgenmsg
)

// Ruleset reads all tables. A kernel without nftables has none.
func (r *Reader) Ruleset() (*Ruleset, error) {
	rules := &Ruleset{chains: make(map[key]*Chain), sets: make(map[key]set)}
	if r.nft == nil {
		return rules, nil
	}
	chains := r.dump(unix.NFT_MSG_GETCHAIN, rules.addChain)
	if nftbatch.Lacking(chains) && len(rules.chains) == 0 {
		return rules, nil
	}
	err := errors.Join(chains, r.dump(unix.NFT_MSG_GETRULE, rules.addRule), r.dump(unix.NFT_MSG_GETSET, rules.addSet))
	if err != nil {
		return nil, fmt.Errorf("read nftables rules: %w", err)
	}
	return rules, nil
}

// dump calls f with the attributes of each object of all families.
func (r *Reader) dump(kind int, f func(nftables.TableFamily, *netlink.AttributeDecoder)) error {
	messages, err := r.nft.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: make([]byte, nfgenmsgLen),
	})
	if err != nil {
		return err
	}
	for _, m := range messages {
		a, err := attributes(m.Data)
		if err != nil {
			return err
		}
		f(nftables.TableFamily(m.Data[0]), a)
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

// attributes decodes what follows struct nfgenmsg in a message of nftables.
func attributes(message []byte) (*netlink.AttributeDecoder, error) {
	if len(message) < nfgenmsgLen {
		return nil, fmt.Errorf("message of %d bytes: %w", len(message), unix.EBADMSG)
	}
	a, err := netlink.NewAttributeDecoder(message[nfgenmsgLen:])
	if err == nil {
		a.ByteOrder = binary.BigEndian
	}
	return a, err
}

func (r *Ruleset) addChain(family nftables.TableFamily, a *netlink.AttributeDecoder) {
	c := &Chain{key: key{Family: family}}
	hooked := false
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = a.String()
		case unix.NFTA_CHAIN_NAME:
			c.Name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			c.Kind = a.String()
		case unix.NFTA_CHAIN_POLICY:
			c.Drops = a.Uint32() == uint32(nftables.ChainPolicyDrop)
		case unix.NFTA_CHAIN_HOOK:
			hooked = true
			a.Nested(c.addHook)
		}
	}
	r.chains[c.key] = c
	if hooked {
		r.Bases = append(r.Bases, c)
	}
}

func (c *Chain) addHook(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			c.Hook = a.Uint32()
		case unix.NFTA_HOOK_PRIORITY:
			c.Priority = int32(a.Uint32())
		case unix.NFTA_HOOK_DEV:
			c.devices = append(c.devices, a.String())
		case nftaHookDevs:
			a.Nested(c.addDevices)
		}
	}
	return nil
}

// addDevices adds the beginnings of names with an asterisk. Linux 6.16 and 6.17 leave
// out the zero at their end, and later kernels have an attribute for them.
func (c *Chain) addDevices(a *netlink.AttributeDecoder) error {
	for a.Next() {
		name := a.String()
		if b := a.Bytes(); a.Type() == nftaDevicePrefix || len(b) > 0 && b[len(b)-1] != 0 {
			name += "*"
		}
		c.devices = append(c.devices, name)
	}
	return nil
}

// At reports whether a chain sees the packets of a device. The chain is of family netdev,
// or at the ingress hook of family inet.
func (c *Chain) At(device string) bool {
	return slices.ContainsFunc(c.devices, func(d string) bool {
		prefix, isPrefix := strings.CutSuffix(d, "*")
		return d == device || isPrefix && strings.HasPrefix(device, prefix)
	})
}

func (r *Ruleset) addRule(family nftables.TableFamily, a *netlink.AttributeDecoder) {
	k := key{Family: family}
	var rule []Expression
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			k.Table = a.String()
		case unix.NFTA_RULE_CHAIN:
			k.Name = a.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			eachIn(a, func(a *netlink.AttributeDecoder) error {
				rule = append(rule, expressionOf(family, a))
				return nil
			})
		}
	}
	if c := r.chains[k]; c != nil { // else it was added since the chains were read
		c.Rules = append(c.Rules, rule)
	}
}

// eachIn calls f with the attributes of each element of a list.
func eachIn(list *netlink.AttributeDecoder, f func(*netlink.AttributeDecoder) error) {
	list.Nested(func(a *netlink.AttributeDecoder) error {
		for a.Next() {
			a.Nested(f)
		}
		return nil
	})
}

func expressionOf(family nftables.TableFamily, a *netlink.AttributeDecoder) (e Expression) {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			e.Name = a.String()
		case unix.NFTA_EXPR_DATA:
			e.Value = decode(byte(family), e.Name, a.Bytes())
		}
	}
	return e
}

// decode returns nil for an expression that it does not know.
func decode(family byte, name string, data []byte) (e expr.Any) {
	switch name {
	case "payload":
		e = new(expr.Payload)
	case "meta":
		e = new(expr.Meta)
	case "ct":
		e = new(expr.Ct)
	case "bitwise":
		e = new(expr.Bitwise)
	case "cmp":
		e = new(expr.Cmp)
	case "range":
		e = new(expr.Range)
	case "lookup":
		e = new(expr.Lookup)
	case "match":
		e = new(expr.Match)
	case "target":
		e = new(expr.Target)
	case "immediate":
		value := new(expr.Immediate)
		if e = value; expr.Unmarshal(family, data, value) == nil && value.Register == unix.NFT_REG_VERDICT {
			e = new(expr.Verdict)
		}
	default:
		return nil
	}
	if expr.Unmarshal(family, data, e) != nil {
		return nil
	}
	return e
}

// Targets returns the chains that a rule of c jumps to. One has the name jump. If the rule
// looks a verdict up in a map, each chain of the table without a hook may be one.
func (r *Ruleset) Targets(c *Chain, jump string, mapped bool) (targets []*Chain) {
	if target := r.chains[key{c.Family, c.Table, jump}]; target != nil {
		targets = append(targets, target)
	}
	if mapped {
		for other := range r.Table(c) {
			if other.Kind == "" {
				targets = append(targets, other)
			}
		}
	}
	return targets
}

// Table yields the chains of a chain's table, in no order.
func (r *Ruleset) Table(c *Chain) iter.Seq[*Chain] {
	return func(yield func(*Chain) bool) {
		for k, other := range r.chains {
			if k.Family == c.Family && k.Table == c.Table && !yield(other) {
				return
			}
		}
	}
}
