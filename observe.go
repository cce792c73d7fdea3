package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
)

const (
	// lookEvery is how often the state is compared with what it was.
	lookEvery = time.Second
	// named is how many peers one message names; the others it counts.
	named = 5
)

// turnout is which peers have joined and left since that was last told. Who
// changes the set of peers says so here: to compare thousands of them again and
// again would cost more than all else that a daemon does when nothing happens.
type turnout struct {
	mu     sync.Mutex
	joined map[netip.Prefix]bool // or else left; guarded by mu
}

// note takes up a peer's coming or going; who came and went was never here.
func (t *turnout) note(subnet netip.Prefix, joined bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if before, noted := t.joined[subnet]; noted && before != joined {
		delete(t.joined, subnet)
		return
	}
	if t.joined == nil {
		t.joined = make(map[netip.Prefix]bool)
	}
	t.joined[subnet] = joined
}

// take returns what was noted since the last call.
func (t *turnout) take() (joined, left []netip.Prefix) {
	t.mu.Lock()
	noted := t.joined
	t.joined = nil
	t.mu.Unlock()
	for subnet, is := range noted {
		if is {
			joined = append(joined, subnet)
		} else {
			left = append(left, subnet)
		}
	}
	return joined, left
}

// observe puts into words what changes, for the log and the status page, until
// ctx ends. What it looks at costs the same however many peers there are.
func (d *daemon) observe(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	before, _ := d.outline()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now, _ := d.outline()
			for _, text := range append(changes(before, now), d.peerChanges(d.snapshot().prober)...) {
				log.Info(text)
				d.events.Add(text)
			}
			before = now
		}
	}
}

// peerChanges says which peers are not what they were, one line for each kind: a
// thousand peers that fall silent at once are one line.
func (d *daemon) peerChanges(p *probe.Prober) []string {
	joined, left := d.turnout.take()
	said := slices.Concat(crowd("peers joined", joined), crowd("peers left", left))
	if p != nil {
		silent, heard := p.Turned()
		said = slices.Concat(said, crowd("peers do not answer through the overlay", silent), crowd("peers answer again", heard))
	}
	return said
}

// crowd is the line for these peers; none if there are none.
func crowd(what string, subnets []netip.Prefix) []string {
	if len(subnets) == 0 {
		return nil
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	return []string{fmt.Sprintf("%s count=%d subnets=%v", what, len(subnets), subnets[:min(named, len(subnets))])}
}

// changes says what is different between two outlines.
func changes(before, now status.Snapshot) []string {
	var said []string
	say := func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	if now.Node != before.Node && now.Node.Iface != "" {
		say("use interface iface=%s public_ip=%v mtu=%d", now.Node.Iface, now.Node.PublicIP, now.Node.MTU)
	}
	if now.Lease != nil && (before.Lease == nil || before.Lease.Subnet != now.Lease.Subnet) {
		say("lease subnet subnet=%v", now.Lease.Subnet)
	} else if now.Lease != nil && now.Lease.ExpiresAt.After(before.Lease.ExpiresAt) {
		say("renewed lease subnet=%v expires=%s", now.Lease.Subnet, now.Lease.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if now.Store.Since.IsZero() == before.Store.Since.IsZero() && now.Store.Reachable != before.Store.Reachable {
		if now.Store.Reachable {
			say("the store answers again")
		} else {
			say("the store does not answer; packets go on")
		}
	}
	if is, was := len(now.NotReady) == 0, len(before.NotReady) == 0; is != was {
		if is {
			say("the network is complete")
		} else {
			say("not ready reason=%q", now.NotReady[0])
		}
	}
	return said
}
