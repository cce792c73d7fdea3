package subnet

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"
)

const (
	// settleTime is how long a removal waits for others to come, so that leases
	// which vanish one by one within a moment are seen to vanish together.
	settleTime = 250 * time.Millisecond
	// graceTime is how long a mass disappearance is held. Hosts that are alive
	// create their keys again within seconds of the store's return; a program
	// that restarts when its lease is gone has had time to.
	graceTime = 2 * time.Minute
)

// departures stand between the store's news and the data plane. A single lease
// that goes is taken away; when most go at once, it is the store that has lost
// its data rather than the hosts that have left, and the peers stay as they
// are until they come back or graceTime is over.
//
//	            ┌ settleTime, then: few ──────────────────► apply
//	removal ───►┤
//	            └ settleTime, then: more than half ─► hold ─graceTime─► apply
//	                                                    └─ it comes back ─► nothing has happened
type departures struct {
	// gone are leases that the data plane was told of, and that are no longer in
	// the store.
	gone map[netip.Prefix]*Lease
	// selfGone is when our own lease was seen to go, though Renew creates it
	// again at once.
	selfGone time.Time
	// due is when settle decides about gone; zero while there is nothing.
	due     time.Time
	holding bool
}

func newDepartures() *departures {
	return &departures{gone: make(map[netip.Prefix]*Lease)}
}

// pass returns those of the events, a leaseSet's, that take effect now, and keeps
// the removals.
func (d *departures) pass(events []Event, now time.Time) []Event {
	var removed, added []Event
	for _, e := range events {
		if e.Type == Removed {
			if d.due.IsZero() {
				d.due = now.Add(settleTime)
			}
			d.gone[e.Lease.Subnet] = e.Lease
			continue
		}
		// What comes in the place of a subnet that is kept ends it.
		for p := range d.gone {
			if p != e.Lease.Subnet && p.Overlaps(e.Lease.Subnet) {
				removed = append(removed, d.remove(p))
			}
		}
		old := d.gone[e.Lease.Subnet]
		delete(d.gone, e.Lease.Subnet)
		if old == nil || !old.Attrs.Equal(e.Lease.Attrs) {
			added = append(added, e)
		}
	}
	if d.holding && len(d.gone) == 0 {
		// What is deleted from now on is deleted on purpose.
		log.Warningf("end of mass disappearance came_back=true removed=0")
		d.holding, d.due = false, time.Time{}
	}
	return append(removed, added...)
}

// settle decides about the removals that have come until due, and returns those
// that take effect; stored is how many peers the store has.
func (d *departures) settle(now time.Time, stored int) []Event {
	// We are one of the hosts: with a single peer, both gone is an empty store.
	gone, all := len(d.gone), stored+len(d.gone)+1
	if !d.selfGone.IsZero() && now.Sub(d.selfGone) <= 2*settleTime {
		gone++
	}
	if !d.holding && 2*gone > all {
		d.holding, d.due = true, now.Add(graceTime)
		log.Errorf("MASS DISAPPEARANCE: of %d leases, %d are gone from the store at once; keep sending to them for %v. Was the store emptied, or restored from a backup?",
			all, gone, graceTime)
		return nil
	}
	if d.holding {
		log.Warningf("end of mass disappearance came_back=false removed=%d", len(d.gone))
	}
	d.holding, d.due = false, time.Time{}
	var events []Event
	for _, p := range slices.SortedFunc(maps.Keys(d.gone), netip.Prefix.Compare) {
		events = append(events, d.remove(p))
	}
	return events
}

func (d *departures) remove(p netip.Prefix) Event {
	delete(d.gone, p)
	return Event{Removed, &Lease{Subnet: p}}
}

// held is how many peers are kept although the store has lost them.
func (d *departures) held() int {
	if !d.holding {
		return 0
	}
	return len(d.gone)
}
