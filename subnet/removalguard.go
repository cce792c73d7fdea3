package subnet

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"
)

const (
	// settleTime is how long each removal waits. A living host whose key is gone
	// creates it again meanwhile, also on a loaded machine. Leases that vanish one by
	// one within that time count as vanishing together.
	settleTime = time.Second
	// graceTime is how long a mass disappearance is held. Living hosts create
	// their keys again within seconds of the store's return. A program that
	// restarts when its lease is gone has time to do so.
	graceTime = 2 * time.Minute
)

// removalGuard delays removals on their way to the data plane. The removal of a
// single lease takes effect after settleTime. If most leases vanish at once, the
// store has probably lost its data and the hosts are alive: the peers are held
// until they come back or graceTime is over.
//
//	            ┌ settleTime, then: few ──────────────────► apply
//	removal ───►┤
//	            └ settleTime, then: more than half ─► hold ─graceTime─► apply
//	                                                    └─ it comes back ─► nothing has happened
type removalGuard struct {
	// gone are the parts that are in the data plane and no longer in the store.
	gone map[netip.Prefix]absence
	// own is the number of parts of our own lease.
	own int
	// selfGone is when our own lease was seen to vanish; Renew creates it again
	// at once.
	selfGone time.Time
	// due is when expire decides about gone; zero if gone is empty.
	due     time.Time
	holding bool
}

// absence is a removal that has not taken effect.
type absence struct {
	Event
	since time.Time
}

func newRemovalGuard(self Lease) *removalGuard {
	return &removalGuard{gone: make(map[netip.Prefix]absence), own: len(self.Parts())}
}

// filter returns the events, of a leaseSet, that take effect now. It keeps the
// removals.
func (g *removalGuard) filter(events []Event, now time.Time) []Event {
	var removed, added []Event
	for _, e := range events {
		if e.Type == Removed {
			if g.due.IsZero() {
				g.due = now.Add(settleTime)
			}
			g.gone[e.Subnet()] = absence{e, now}
			continue
		}
		// A new lease ends what it overlaps.
		for p := range g.gone {
			if p != e.Subnet() && p.Overlaps(e.Subnet()) {
				removed = append(removed, g.remove(p))
			}
		}
		old, was := g.gone[e.Subnet()]
		delete(g.gone, e.Subnet())
		if !was || !old.Lease.Attrs.Equal(e.Lease.Attrs) {
			added = append(added, e)
		}
	}
	if len(g.gone) == 0 { // promise: hold-ends-when-all-are-back
		if g.holding { // from now on a deletion is deliberate
			log.Warningf("end of mass disappearance came_back=true removed=0")
		}
		g.holding, g.due = false, time.Time{}
	}
	return append(removed, added...)
}

// expire decides about the removals at due. It returns those that take effect, by
// subnet: all that were held, else those older than settleTime.
// present is the number of parts of peers in the store.
func (g *removalGuard) expire(now time.Time, present int) []Event {
	// This host counts too: with a single peer, both gone is an empty store.
	gone, all := len(g.gone), present+len(g.gone)+g.own
	if !g.selfGone.IsZero() && now.Sub(g.selfGone) <= 2*settleTime {
		gone += g.own
	}
	if !g.holding && 2*gone > all { // promise: mass-removal-is-held
		g.holding, g.due = true, now.Add(graceTime)
		log.Errorf("MASS DISAPPEARANCE: of %d leases, %d are gone from the store at once; keep sending to them for %v. Was the store emptied, or restored from a backup?",
			all, gone, graceTime)
		return nil
	}
	if g.holding {
		log.Warningf("end of mass disappearance came_back=false removed=%d", len(g.gone))
	}
	var events []Event
	next := time.Time{}
	for _, p := range slices.SortedFunc(maps.Keys(g.gone), netip.Prefix.Compare) {
		switch at := g.gone[p].since.Add(settleTime); {
		case g.holding || !at.After(now): // promise: each-removal-waits
			events = append(events, g.remove(p))
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	g.holding, g.due = false, next
	return events
}

func (g *removalGuard) remove(p netip.Prefix) Event {
	e := g.gone[p]
	delete(g.gone, p)
	return e.Event
}

// hosts returns the number of different leases in gone.
func (g *removalGuard) hosts() (n int) {
	for p, e := range g.gone {
		if e.Lease.first() == p {
			n++
		}
	}
	return n
}

// held returns how many peers are kept although they are gone from the store.
func (g *removalGuard) held() int {
	if !g.holding {
		return 0
	}
	return g.hosts()
}
