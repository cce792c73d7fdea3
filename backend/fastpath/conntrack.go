package fastpath

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// Without a rule that names connection tracking the kernel tracks nothing
// (nf_ct_netns_get in net/netfilter/nf_conntrack_proto.c). So the table of the
// fast path has such a rule. It decides nothing:
//
//	chain forward {
//		type filter hook forward priority 2147483647; policy accept;
//		ct state counter
//	}

// conntrackTable is the table for a tunnel device, such as flannel-fastpath-flannel0.
func conntrackTable(device string) *nftables.Table {
	return &nftables.Table{Name: "flannel-fastpath-" + device, Family: nftables.TableFamilyIPv4}
}

// track has the kernel track flows. It runs in the network namespace of the
// device, and changes nothing if the table exists.
func track(device string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("turn on connection tracking: %w", err)
	}
	t := conntrackTable(device)
	if _, err := c.ListTableOfFamily(t.Name, t.Family); err == nil {
		return nil
	}
	accept := nftables.ChainPolicyAccept
	c.AddTable(t)
	forward := c.AddChain(&nftables.Chain{
		Name: "forward", Table: t, Type: nftables.ChainTypeFilter, Policy: &accept,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityLast,
	})
	c.AddRule(&nftables.Rule{Table: t, Chain: forward, Exprs: []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Counter{},
	}})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("turn on connection tracking: %w", err)
	}
	return nil
}

// untrack takes the table away. It is no error if it is not there.
func untrack(device string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("remove table of fast path: %w", err)
	}
	t := conntrackTable(device)
	c.AddTable(t)
	c.DelTable(t)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("remove table of fast path: %w", err)
	}
	return nil
}
