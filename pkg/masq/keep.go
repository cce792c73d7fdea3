package masq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	log "github.com/golang/glog"
	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/ratelog"
)

const (
	// repairEvery and repairBurst keep us from a fast endless quarrel with
	// another program that removes our rules each time.
	repairEvery = 500 * time.Millisecond
	repairBurst = 3
	// retryAfter is when a repair that failed is tried again.
	retryAfter = 5 * time.Second
)

// Run applies r, and again whenever another program has changed or deleted the
// table, as a reload of a firewall does ("flush ruleset"). It works on the
// kernel's announcements, in the network namespace of the calling thread, and
// wakes for changes of our own table only. It returns nil when ctx ends and
// leaves the table in place; see Remove. An error means that the rules could
// not be set up, or that the kernel's announcements ended.
func Run(ctx context.Context, r Rules) error {
	t := table(r.Network)
	// Listen before the table is made, so that no change of it goes unseen.
	w, err := watch(t.Name)
	if err != nil {
		return err
	}
	defer w.close()
	limit := rate.NewLimiter(rate.Every(repairEvery), repairBurst)
	want, err := settle(ctx, r, limit)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	warnOfDrops(t)

	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.failed:
			return fmt.Errorf("watch nftables: %w", err)
		case <-w.changed:
		case <-retry:
		}
		retry = nil
		if have, err := look(t); err == nil && reflect.DeepEqual(have, want) {
			continue
		}
		if limit.Wait(ctx) != nil {
			return nil
		}
		ratelog.Warningf("repair nftables table=%s reason=%q", t.Name, "changed by another program")
		// What the kernel makes of our rules stays the measure: reading it back
		// anew would take a second change that came in between for our own.
		if err := Apply(r); err != nil {
			ratelog.Errorf("repair nftables table=%s reason=%q retry=%v", t.Name, err, retryAfter)
			retry = time.After(retryAfter)
		}
	}
}

// settle applies r and returns what the kernel makes of it. A change by another
// program between the two, or amid the reading, which is several requests,
// would become the measure of all repairs: then it begins again.
func settle(ctx context.Context, r Rules, limit *rate.Limiter) (state, error) {
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
		want, lookErr := look(table(r.Network))
		after, err := generation()
		if err != nil {
			return nil, err
		}
		if after == before+1 { // ours is the only transaction
			return want, lookErr
		}
	}
}

// state is what a table holds, as the kernel tells it: for each chain, its own
// settings and its rules, without what differs from one making to the next.
type state map[string][]any

func look(t *nftables.Table) (state, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
	}
	chains, err := c.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
	}
	s := make(state)
	for _, chain := range chains {
		if chain.Table.Name != t.Name {
			continue
		}
		rules, err := c.GetRules(t, chain)
		if err != nil {
			return nil, fmt.Errorf("read nftables table %s: %w", t.Name, err)
		}
		content := []any{chain.Type, chain.Hooknum, chain.Priority, chain.Policy}
		for _, rule := range rules {
			for _, e := range rule.Exprs {
				if _, isCounter := e.(*expr.Counter); isCounter {
					e = &expr.Counter{}
				}
				content = append(content, e)
			}
		}
		s[chain.Name] = content
	}
	if len(s) == 0 {
		return nil, errors.New("read nftables table " + t.Name + ": it is gone")
	}
	return s, nil
}

// warnOfDrops names the chains whose policy drops forwarded packets: ours
// cannot overrule them.
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
