package masq

import (
	"context"
	"fmt"
	"reflect"
	"time"

	log "github.com/golang/glog"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
)

const (
	// repairInterval and repairBurst bound a quarrel with another program that
	// changes our rules each time.
	repairInterval = 500 * time.Millisecond
	repairBurst    = 3
)

// Run applies r, and applies it again whenever another program changes or
// deletes the table, as the reload of a firewall does ("flush ruleset"). It acts
// on the kernel's announcements, in the network namespace of the calling thread.
// Only changes of our own table wake it. Run returns nil when ctx ends, and
// leaves the table in place; see Remove. It returns an error if it cannot set
// the rules up, or if it can no longer receive announcements.
func Run(ctx context.Context, r Rules) error {
	t := table(r.Network)
	// Subscribe first: a change of the new table must not be missed.
	listener, err := reconcile.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return fmt.Errorf("watch nftables: %w", err)
	}
	defer listener.Close()
	desired, err := settle(ctx, r, rate.NewLimiter(rate.Every(repairInterval), repairBurst))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	warnOfDrops(t)
	return reconcile.Loop{
		Task:     "repair nftables table=" + t.Name,
		Interval: repairInterval,
		Burst:    repairBurst,
		Changed:  reconcile.NewSignal(),
		Watch: func(ctx context.Context, changed func()) error {
			return listener.Run(ctx, func(datagram []byte) bool { return concerns(datagram, t.Name) }, changed)
		},
		Step: func(context.Context) error {
			if actual, err := readTable(t); err == nil && reflect.DeepEqual(actual, desired) {
				return nil
			}
			ratelog.Warningf("repair nftables table=%s reason=%q", t.Name, "changed by another program")
			// desired stays as it is: a second change could follow this Apply
			// before the table is read.
			return Apply(r)
		},
	}.Run(ctx)
}

// settle applies r and returns the table as the kernel has it then. Reading takes
// several requests. If another program changes the ruleset between the two or
// during the reading, settle starts again: its change must not become the
// desired state.
func settle(ctx context.Context, r Rules, limit *rate.Limiter) (content, error) {
	for {
		if err := limit.Wait(ctx); err != nil {
			return nil, err
		}
		before, err := generation()
		if err != nil {
			return nil, err
		}
		if err := Apply(r); err != nil {
			return nil, err
		}
		actual, readErr := readTable(table(r.Network))
		after, err := generation()
		if err != nil {
			return nil, err
		}
		if after == before+1 { // the only transaction is Apply's
			return actual, readErr
		}
	}
}

// content is a table's: for each chain its settings and rules. It leaves out
// counters and handles, which differ each time the table is made.
type content map[string][]any

func readTable(t *nftables.Table) (content, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
	}
	found := make(content)
	for _, chain := range chains {
		if chain.Table.Name != t.Name {
			continue
		}
		rules, err := c.GetRules(t, chain)
		if err != nil {
			return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
		}
		parts := []any{chain.Type, chain.Hooknum, chain.Priority, chain.Policy}
		for _, rule := range rules {
			for _, e := range rule.Exprs {
				if _, isCounter := e.(*expr.Counter); isCounter {
					e = &expr.Counter{}
				}
				parts = append(parts, e)
			}
		}
		found[chain.Name] = parts
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("read nftables table %s: no chains", t.Name)
	}
	return found, nil
}

// warnOfDrops logs the chains of other tables whose policy drops forwarded
// packets. An accept of ours cannot overrule them.
func warnOfDrops(ours *nftables.Table) {
	c, err := nftables.New()
	if err != nil {
		return
	}
	chains, err := c.ListChains()
	if err != nil {
		ratelog.Warningf("list nftables chains reason=%q", err)
		return
	}
	for _, chain := range drops(chains, ours.Family) {
		log.Warningf("forwarding blocked table=%q chain=%q policy=drop hint=%q", chain.Table.Name, chain.Name,
			"accept packets from and to the overlay network there, with Docker in chain DOCKER-USER")
	}
}

func drops(chains []*nftables.Chain, family nftables.TableFamily) []*nftables.Chain {
	var found []*nftables.Chain
	for _, c := range chains {
		if c.Hooknum != nil && *c.Hooknum == *nftables.ChainHookForward &&
			c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop &&
			(c.Table.Family == family || c.Table.Family == nftables.TableFamilyINet) {
			found = append(found, c)
		}
	}
	return found
}
