package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
)

const (
	// lookEvery is how often the state is compared with what it was.
	lookEvery = 2 * time.Second
	// named is how many peers one message names; the others it counts.
	named = 5
)

// observe puts into words what changes, for the log and the status page, until
// ctx ends. What it looks at costs the same however many peers there are.
func (d *daemon) observe(ctx context.Context) error {
	before := d.outline()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(clock.UntilTick(lookEvery)):
			now := d.outline()
			for _, h := range append(changes(before.Snapshot, now.Snapshot), d.peerChanges(d.snapshot().prober)...) {
				if h.line != "" {
					log.Info(h.line)
				}
				d.events.Add(h.words)
			}
			before = now
		}
	}
}

// happening is one change: a line for the log, whose keys programs look for, and
// a sentence for the people who look at the status page. Without a line, whoever
// brings about the change logs it.
type happening struct{ line, words string }

// peerChanges says which peers are not what they were, one line for each kind: a
// thousand peers that fall silent at once are one line.
func (d *daemon) peerChanges(p *probe.Prober) []happening {
	joined, left := d.turnout.Take()
	said := slices.Concat(
		crowd("peers joined", "joined", "joined", joined),
		crowd("peers left", "left", "left", left))
	if p != nil {
		silent, heard := p.Turned()
		said = slices.Concat(said,
			crowd("peers do not answer through the overlay", "does not answer through the overlay", "do not answer through the overlay", silent),
			crowd("peers answer again", "answers again", "answer again", heard))
	}
	return said
}

// crowd is what is said of these peers, of one and of several; nothing if there
// are none.
func crowd(line, one, several string, subnets []netip.Prefix) []happening {
	if len(subnets) == 0 {
		return nil
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	first := subnets[:min(named, len(subnets))]
	h := happening{
		fmt.Sprintf("%s count=%d subnets=%v", line, len(subnets), first),
		fmt.Sprintf("Peer %v %s.", first[0], one),
	}
	if len(subnets) > 1 {
		names := strings.Trim(strings.ReplaceAll(fmt.Sprint(first), " ", ", "), "[]")
		if more := len(subnets) - len(first); more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		h.words = fmt.Sprintf("%d peers %s: %s.", len(subnets), several, names)
	}
	return []happening{h}
}

// changes says what is different between two outlines.
func changes(before, now status.Snapshot) []happening {
	var said []happening
	say := func(line, words string) { said = append(said, happening{line, words}) }
	if n := now.Node; n != before.Node && n.Iface != "" {
		say("", fmt.Sprintf("Other hosts are reached by interface %s with MTU %d, and reach this one at %v.", n.Iface, n.MTU, n.PublicIP))
	}
	if l := now.Lease; l != nil && (before.Lease == nil || before.Lease.Subnet != l.Subnet) {
		say("", fmt.Sprintf("This host has the subnet %v.", l.Subnet))
	} else if l != nil && l.ExpiresAt.After(before.Lease.ExpiresAt) {
		say("", fmt.Sprintf("The lease of %v is renewed, until %s.", l.Subnet, l.ExpiresAt.UTC().Format("2 January 15:04 MST")))
	}
	if now.Store.Since.IsZero() == before.Store.Since.IsZero() && now.Store.Reachable != before.Store.Reachable {
		if now.Store.Reachable {
			say("the store answers again", "The store answers again.")
		} else {
			say("the store does not answer; packets go on", "The store does not answer; packets go on.")
		}
	}
	if is, was := len(now.NotReady) == 0, len(before.NotReady) == 0; is != was {
		if is {
			say("the network is complete", "The network is complete.")
		} else {
			say(fmt.Sprintf("not ready reason=%q", now.NotReady[0]), "Not ready: "+now.NotReady[0]+".")
		}
	}
	return said
}
