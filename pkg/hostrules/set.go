package hostrules

import (
	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// set is what matters of a set or map. Its elements are read on demand.
type set struct {
	expires, dynamic bool
	expressions      []string // that the kernel evaluates for each packet that is found
}

// Attributes of linux/netfilter/nf_tables.h that x/sys/unix lacks.
const (
	nftaSetExpr        = 17 // NFTA_SET_EXPR
	nftaSetExpressions = 18 // NFTA_SET_EXPRESSIONS
)

func (r *Ruleset) addSet(family nftables.TableFamily, a *netlink.AttributeDecoder) {
	k := key{Family: family}
	var s set
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_SET_TABLE:
			k.Table = a.String()
		case unix.NFTA_SET_NAME:
			k.Name = a.String()
		case unix.NFTA_SET_FLAGS:
			flags := a.Uint32()
			s.expires, s.dynamic = flags&unix.NFT_SET_TIMEOUT != 0, flags&unix.NFT_SET_EVAL != 0
		case nftaSetExpr:
			a.Nested(s.addExpression)
		case nftaSetExpressions:
			eachIn(a, s.addExpression)
		}
	}
	r.sets[k] = s
}

func (s *set) addExpression(a *netlink.AttributeDecoder) error {
	for a.Next() {
		if a.Type() == unix.NFTA_EXPR_NAME {
			s.expressions = append(s.expressions, a.String())
		}
	}
	return nil
}

// Unannounced returns the reason why the result of a look-up in a set of c's table may
// change without an announcement; empty: it does not. Elements expire, rules add and
// delete elements, and expressions such as limit judge each packet.
func (r *Ruleset) Unannounced(c *Chain, name string) string {
	s := r.sets[key{c.Family, c.Table, name}]
	for _, e := range s.expressions {
		if e != "counter" {
			return e
		}
	}
	switch {
	case s.expires:
		return "timeouts"
	case s.dynamic:
		return "dynamic elements"
	}
	return ""
}
