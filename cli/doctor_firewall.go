package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// checkFirewall looks for base chains of policy drop at the input and forward
// hooks, if no rule of their table accepts flannel's packets. The tables of
// iptables-nft are among them. It does not evaluate rules: flannel ping and
// checkPeers measure whether packets pass.
func checkFirewall(f *facts) finding {
	var chains []*nftables.Chain
	conn, err := nftables.New()
	if err == nil {
		chains, err = conn.ListChains()
	}
	if err != nil {
		return warn("sudo flannel doctor", "nftables cannot be read: %v", err)
	}
	_, port := f.endpoint()
	for _, c := range chains {
		family := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet"}[c.Table.Family]
		if family == "" || c.Hooknum == nil || c.Policy == nil || *c.Policy != nftables.ChainPolicyDrop {
			continue
		}
		var packets, fix string
		var key ruleKey
		rule := fmt.Sprintf("insert rule %s %s %s", family, c.Table.Name, c.Name)
		switch {
		case *c.Hooknum == *nftables.ChainHookInput && port != 0:
			packets, fix = fmt.Sprintf("UDP port %d", port), fmt.Sprintf("nft %s udp dport %d accept", rule, port)
			key = ruleKey{expr.PayloadBaseTransportHeader, binary.BigEndian.AppendUint16(nil, uint16(port))}
		case *c.Hooknum == *nftables.ChainHookForward && f.config != nil:
			n := f.config.Network
			packets, fix = fmt.Sprintf("the network %v", n), fmt.Sprintf("nft '%s ip saddr %v accept; %s ip daddr %v accept'", rule, n, rule, n)
			key = ruleKey{expr.PayloadBaseNetworkHeader, n.Addr().AsSlice()}
		default:
			continue
		}
		accepted, err := key.accepted(conn, c.Table, chains)
		if err != nil {
			return warn("sudo flannel doctor", "rules of the table %s cannot be read: %v", c.Table.Name, err)
		}
		if !accepted {
			return warn(fix, "the chain %s of the table %s has policy drop, and no rule accepts %s; flannel ping shows whether packets pass", c.Name, c.Table.Name, packets)
		}
	}
	return okay("input and forward have no policy drop without a rule for flannel; flannel ping shows whether packets pass")
}

// ruleKey is the value in a header that a rule for flannel's packets compares.
type ruleKey struct {
	base  expr.PayloadBase
	value []byte // a rule for a prefix may compare its first bytes only
}

// accepted reports whether a rule of the table compares the key and accepts.
func (k ruleKey) accepted(conn *nftables.Conn, t *nftables.Table, chains []*nftables.Chain) (bool, error) {
	for _, c := range chains {
		if c.Table.Name != t.Name || c.Table.Family != t.Family {
			continue
		}
		rules, err := conn.GetRules(t, c)
		if err != nil {
			return false, err
		}
		for _, r := range rules {
			var loaded *expr.Payload
			compared := false
			for _, e := range r.Exprs {
				switch e := e.(type) {
				case *expr.Payload:
					loaded = e
				case *expr.Cmp:
					compared = compared || loaded != nil && loaded.Base == k.base && e.Op == expr.CmpOpEq && len(e.Data) > 1 && bytes.HasPrefix(k.value, e.Data)
					loaded = nil
				case *expr.Verdict:
					if compared && e.Kind == expr.VerdictAccept {
						return true, nil
					}
				}
			}
		}
	}
	return false, nil
}
