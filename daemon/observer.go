package daemon

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/status"
)

const (
	// observeInterval is how often the state is compared with what it was.
	observeInterval = 2 * time.Second
	// maxNamed is how many peers one message names; it counts the others.
	maxNamed = 5
)

// observer reports changes to the log and to the status page's events. Its cost
// does not grow with the number of peers: peers that change are announced to it.
type observer struct {
	reporter *reporter
	events   *status.EventLog
	joined   transitions // peers that joined (true) or left (false)
	silent   transitions // peers that fell silent (true) or answer again (false)
	// offloads has the faults of offloads that appeared (true) or are gone (false).
	offloads offloadTransitions
	// note, if not nil, gets each summary.
	note func(status.Snapshot)
}

func newObserver(r *reporter, events *status.EventLog) *observer {
	return &observer{reporter: r, events: events}
}

func (o *observer) peerJoined(peer netip.Prefix) { o.joined.add(peer, true) }

// peerLeft also drops the peer's silence or answer that is not reported yet.
func (o *observer) peerLeft(peer netip.Prefix) {
	o.joined.add(peer, false)
	o.silent.remove(peer)
	o.offloads.remove(peer)
}

func (o *observer) peerSilent(peer netip.Prefix, silent bool) { o.silent.add(peer, silent) }

func (o *observer) offloadChanged(c offloadprobe.Change) { o.offloads.add(c) }

// Run reports changes until ctx ends.
func (o *observer) Run(ctx context.Context) error {
	before := o.reporter.summary()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(clock.UntilTick(observeInterval)):
			now := o.reporter.summary()
			if o.note != nil {
				o.note(now.Snapshot)
			}
			for _, c := range append(changesBetween(before.Snapshot, now.Snapshot), o.peerChanges()...) {
				if c.line != "" {
					log.Info(c.line)
				}
				o.events.Add(c.sentence)
			}
			before = now
		}
	}
}

// change is one change: a line for the log, whose keys programs search, and a
// sentence for the status page. line is empty where the cause of the change logs it.
type change struct{ line, sentence string }

// peerChanges returns the changes of peers since the last call, one for each kind:
// a thousand peers that fall silent at once are one line.
func (o *observer) peerChanges() []change {
	joined, left := o.joined.drain()
	silent, answering := o.silent.drain()
	return slices.Concat(
		o.offloads.drain(),
		summarizePeers("joined", "joined", joined),
		summarizePeers("left", "left", left),
		summarizePeers("does not answer through the overlay", "do not answer through the overlay", silent),
		summarizePeers("answers again", "answer again", answering))
}

// summarizePeers returns one change for all of subnets, none for none. one and
// several are the verb, for one peer and for several.
func summarizePeers(one, several string, subnets []netip.Prefix) []change {
	if len(subnets) == 0 {
		return nil
	}
	slices.SortFunc(subnets, netip.Prefix.Compare)
	first := subnets[:min(maxNamed, len(subnets))]
	c := change{
		fmt.Sprintf("peers %s count=%d subnets=%v", several, len(subnets), first),
		fmt.Sprintf("Peer %v %s.", first[0], one),
	}
	if len(subnets) > 1 {
		names := strings.Trim(strings.ReplaceAll(fmt.Sprint(first), " ", ", "), "[]")
		if more := len(subnets) - len(first); more > 0 {
			names += fmt.Sprintf(" and %d more", more)
		}
		c.sentence = fmt.Sprintf("%d peers %s: %s.", len(subnets), several, names)
	}
	return []change{c}
}

// changesBetween returns the differences of two summaries.
func changesBetween(before, now status.Snapshot) []change {
	var changes []change
	add := func(line, sentence string) { changes = append(changes, change{line, sentence}) }
	reached := func(iface string, mtu int, at netip.Addr) {
		add("", fmt.Sprintf("Other hosts are reached by interface %s with MTU %d, and reach this one at %v.", iface, mtu, at))
	}
	n, m := now.Node, before.Node
	if n.Iface != "" && (n.Iface != m.Iface || n.MTU != m.MTU || n.PublicIP != m.PublicIP) {
		reached(n.Iface, n.MTU, n.PublicIP)
	}
	if n.IPv6Iface != "" && (n.IPv6Iface != m.IPv6Iface || n.IPv6MTU != m.IPv6MTU || n.PublicIPv6 != m.PublicIPv6) {
		reached(n.IPv6Iface, n.IPv6MTU, n.PublicIPv6)
	}
	for _, problem := range now.FamilyProblems {
		if !slices.Contains(before.FamilyProblems, problem) {
			add(fmt.Sprintf("a family cannot be used reason=%q", problem), "One address family cannot be used: "+problem+".")
		}
	}
	changes = append(changes, leaseChanges(before.Lease, now.Lease)...)
	if now.Store.Since.IsZero() == before.Store.Since.IsZero() && now.Store.Reachable != before.Store.Reachable {
		if now.Store.Reachable {
			add("the store answers again", "The store answers again.")
		} else {
			add("the store does not answer; packets go on", "The store does not answer; packets go on.")
		}
	}
	if is, was := len(now.NotReady) == 0, len(before.NotReady) == 0; is != was {
		if is {
			add("the network is complete", "The network is complete.")
		} else {
			add(fmt.Sprintf("not ready reason=%q", now.NotReady[0]), "Not ready: "+now.NotReady[0]+".")
		}
	}
	return changes
}

// offloadFault is a layer and a direction.
type offloadFault struct {
	layer   offloadprobe.Layer
	inbound bool
}

// offloadTransitions collects changes of faults of offloads. The zero value is empty;
// it is safe for concurrent use.
type offloadTransitions struct {
	mu sync.Mutex
	of map[offloadFault]*transitions // guarded by mu
}

func (t *offloadTransitions) add(c offloadprobe.Change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = make(map[offloadFault]*transitions)
	}
	for layer, to := range map[offloadprobe.Layer]bool{c.Was: false, c.Now: true} {
		f := offloadFault{layer, c.Inbound}
		if t.of[f] == nil {
			t.of[f] = new(transitions)
		}
		t.of[f].add(c.Peer, to)
	}
}

func (t *offloadTransitions) remove(peer netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, of := range t.of {
		of.remove(peer)
	}
}

// drain returns a change for each fault. The layer "", no fault, is none.
func (t *offloadTransitions) drain() (all []change) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for f, of := range t.of {
		direction := "to"
		if f.inbound {
			direction = "from"
		}
		found, gone := of.drain()
		if f.layer == "" {
			continue
		}
		phrase := fmt.Sprintf("offload fault, layer %s, of packets %s", f.layer, direction)
		all = append(all, summarizePeers("has an "+phrase+" it", "have an "+phrase+" them", found)...)
		all = append(all, summarizePeers("no longer has the "+phrase+" it", "no longer have the "+phrase+" them", gone)...)
	}
	return all
}

// leaseChanges returns the differences of our lease.
func leaseChanges(before, now *status.Lease) []change {
	switch {
	case now == nil:
		return nil
	case before == nil:
		return []change{{"", fmt.Sprintf("This host has the subnet %s.", now.Subnets())}}
	case before.Subnet != now.Subnet || before.IPv6Subnet != now.IPv6Subnet:
		return []change{{
			fmt.Sprintf("subnets changed before=%s now=%s hint=%q", before.Subnets(), now.Subnets(), engineHint),
			fmt.Sprintf("This host has the subnet %s, it had %s. Containers do not know yet: %s.", now.Subnets(), before.Subnets(), engineHint),
		}}
	case now.ExpiresAt.After(before.ExpiresAt):
		return []change{{"", fmt.Sprintf("The lease of %s is renewed, until %s.", now.Subnets(), now.ExpiresAt.UTC().Format("2 January 15:04 MST"))}}
	}
	return nil
}

// engineHint is what an operator does after a change of the subnets.
const engineHint = "subnet.env is written; give the container engine its values (flannel docker-opts and a restart of Docker, or flannel cni-conf)"

// transitions collects changes of a state that each peer has, since the last
// drain. A change and its reversal cancel out. The zero value is empty; it is safe
// for concurrent use.
type transitions struct {
	mu sync.Mutex
	to map[netip.Prefix]bool // the new state; guarded by mu
}

// add adds peer's change to a state.
func (t *transitions) add(peer netip.Prefix, to bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if before, ok := t.to[peer]; ok && before != to {
		delete(t.to, peer)
		return
	}
	if t.to == nil {
		t.to = make(map[netip.Prefix]bool)
	}
	t.to[peer] = to
}

// remove drops peer's change.
func (t *transitions) remove(peer netip.Prefix) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.to, peer)
}

// drain returns the peers whose state became true, and those whose state became
// false, in no order. It leaves none.
func (t *transitions) drain() (toTrue, toFalse []netip.Prefix) {
	t.mu.Lock()
	changed := t.to
	t.to = nil
	t.mu.Unlock()
	for peer, to := range changed {
		if to {
			toTrue = append(toTrue, peer)
		} else {
			toFalse = append(toFalse, peer)
		}
	}
	return toTrue, toFalse
}
