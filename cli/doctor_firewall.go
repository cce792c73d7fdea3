package cli

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/hostrules"
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
	_, port := f.endpoint()
	for _, c := range rules.Bases {
		if !c.Drops || c.Family != nftables.TableFamilyIPv4 && c.Family != nftables.TableFamilyINet {
			continue
		}
		var packets, fix string
		var key ruleKey
		rule := fmt.Sprintf("insert rule %v", c)
		switch {
		case c.Hook == unix.NF_INET_LOCAL_IN && port != 0:
			packets, fix = fmt.Sprintf("UDP port %d", port), fmt.Sprintf("nft %s udp dport %d accept", rule, port)
			key = ruleKey{expr.PayloadBaseTransportHeader, binary.BigEndian.AppendUint16(nil, uint16(port))}
		case c.Hook == unix.NF_INET_FORWARD && f.config != nil && f.config.Enabled():
			n := f.config.Network
			packets, fix = fmt.Sprintf("the network %v", n), fmt.Sprintf("nft '%s ip saddr %v accept; %s ip daddr %v accept'", rule, n, rule, n)
			key = ruleKey{expr.PayloadBaseNetworkHeader, n.Addr().AsSlice()}
		default:
			continue
		}
		if !key.accepted(rules, c) {
			return warn(fix, "the chain %s of the table %s has policy drop, and no rule accepts %s; flannel ping shows whether packets pass", c.Name, c.Table, packets)
		}
	}
	return okay("input and forward have no policy drop without a rule for flannel; flannel ping shows whether packets pass")
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
	base  expr.PayloadBase
	value []byte // a rule for a prefix may compare its first bytes only
}

// accepted reports whether a rule in the table of a chain compares the key and accepts.
func (k ruleKey) accepted(rules *hostrules.Ruleset, base *hostrules.Chain) bool {
	for c := range rules.Table(base) {
		for _, rule := range c.Rules {
			var loaded *expr.Payload
			compared := false
			for _, e := range rule {
				switch e := e.Value.(type) {
				case *expr.Payload:
					loaded = e
				case *expr.Cmp:
					compared = compared || loaded != nil && loaded.Base == k.base && e.Op == expr.CmpOpEq && len(e.Data) > 1 && bytes.HasPrefix(k.value, e.Data)
					loaded = nil
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
