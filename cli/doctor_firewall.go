package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/inet"
)

// checkFirewall looks for base chains of policy drop at the input and forward
// hooks, if no rule of their table accepts flannel's packets. The tables of
// iptables-nft are among them. It does not evaluate rules: flannel ping and
// checkPeers measure whether packets pass.
func checkFirewall(f *facts) finding {
	rules, err := readRuleset()
	if err != nil {
		return warn("sudo flannel doctor", "%v", err)
	}
	for _, c := range rules.Bases {
		if !c.Drops {
			continue
		}
		for _, need := range f.needs(c) {
			if !need.key.accepted(rules, c) {
				return warn(need.fix, "the chain %s of the table %s has policy drop, and no rule accepts %s; flannel ping shows whether packets pass", c.Name, c.Table, need.packets)
			}
		}
	}
	return okay("input and forward have no policy drop without a rule for flannel; flannel ping shows whether packets pass")
}

// need is what a chain with policy drop must accept.
type need struct {
	packets, fix string
	key          ruleKey
}

// needs returns what a base chain must accept for the families of the network.
func (f *facts) needs(c *hostrules.Chain) (all []need) {
	families := inet.Families[:1]
	if f.config != nil {
		families = f.config.Families()
	}
	_, port := f.endpoint()
	for _, family := range families {
		word, table := "ip", nftables.TableFamilyIPv4
		if family == inet.IPv6 {
			word, table = "ip6", nftables.TableFamilyIPv6
		}
		if c.Family != table && c.Family != nftables.TableFamilyINet {
			continue
		}
		rule := fmt.Sprintf("nft 'insert rule %v ", c)
		switch c.Hook {
		case unix.NF_INET_LOCAL_IN:
			if port != 0 {
				all = append(all, need{fmt.Sprintf("UDP port %d", port), fmt.Sprintf("%sudp dport %d accept'", rule, port),
					ruleKey{base: expr.PayloadBaseTransportHeader, value: binary.BigEndian.AppendUint16(nil, uint16(port))}})
			}
			if family == inet.IPv6 { // its neighbour discovery (RFC 4861)
				all = append(all, need{"ICMPv6, without which no neighbour is found", rule + "meta l4proto ipv6-icmp accept'",
					ruleKey{protocol: true, value: []byte{unix.IPPROTO_ICMPV6}}})
			}
		case unix.NF_INET_FORWARD:
			if n := f.config; n != nil {
				network := n.RangeOf(family).Network
				all = append(all, need{fmt.Sprintf("the network %v", network),
					fmt.Sprintf("%[1]s%[2]s saddr %[3]v accept; insert rule %[4]v %[2]s daddr %[3]v accept'", rule, word, network, c),
					ruleKey{base: expr.PayloadBaseNetworkHeader, value: network.Addr().AsSlice()}})
			}
		}
	}
	return all
}

func readRuleset() (*hostrules.Ruleset, error) {
	r, err := hostrules.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return r.Ruleset()
}

// ruleKey is the value in a header that a rule for flannel's packets compares.
type ruleKey struct {
	base expr.PayloadBase
	// protocol: the rule compares the transport protocol, and not a header.
	protocol bool
	value    []byte // a rule for a prefix may compare its first bytes only
}

// accepted reports whether a rule in the table of a chain compares the key and accepts.
func (k ruleKey) accepted(rules *hostrules.Ruleset, base *hostrules.Chain) bool {
	for c := range rules.Table(base) {
		for _, rule := range c.Rules {
			loaded, compared := false, false
			for _, e := range rule {
				switch e := e.Value.(type) {
				case *expr.Payload:
					loaded = !k.protocol && e.Base == k.base
				case *expr.Meta:
					loaded = k.protocol && e.Key == expr.MetaKeyL4PROTO
				case *expr.Cmp:
					compared = compared || loaded && e.Op == expr.CmpOpEq && len(e.Data) >= min(2, len(k.value)) && bytes.HasPrefix(k.value, e.Data)
					loaded = false
				case *expr.Verdict:
					if compared && e.Kind == expr.VerdictAccept {
						return true
					}
				}
			}
		}
	}
	return false
}
