package subnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
)

// Watch delivers the peers' leases to apply until ctx ends (nil). It guarantees:
//
//   - complete: the first call carries every live lease but our own, even if
//     there are none. After AdoptPeers, it carries those.
//   - ordered: each call leads from one state of the store to a later one.
//   - resync: after a loss of history, apply receives exactly the difference
//     between what it has and what is stored, changed attributes included.
//   - own: a lease with self's subnet, its public IP or an overlapping subnet is
//     never delivered; nor are subnets outside Network and leases of other
//     backends.
//   - families: each part of a lease is an event of its own. Parts of a family in
//     which self has none are not delivered.
//   - disjoint: no two peers' subnets overlap. Of overlapping leases all hosts
//     choose the same one. The others are left out, counted and logged once.
//   - held: if more than half of all leases vanish at once, they stay peers until
//     they come back or two minutes are over.
//   - serial: apply is called from one goroutine, and not after Watch returned.
//
// While the store does not answer, the peers stay as they are.
func (m *Manager) Watch(ctx context.Context, self Lease, apply func([]Event)) error {
	w := watcher{manager: m, self: self, apply: apply, removals: newRemovalGuard(self), updates: make(chan update)}
	w.set = newLeaseSet(w.classify, func(p netip.Prefix) bool { return m.config.RangeOf(inet.Of(p.Addr())).Allows(p) }, &m.bad)
	if m.peersAdopted {
		w.deliver(w.removals.filter(w.set.replace(m.adopted), time.Now()), true)
		m.adopted, m.peersAdopted = nil, false
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() {
		defer close(w.updates)
		w.read(ctx)
	})
	w.run()
	return nil
}

// watcher is one run of Watch. Its reader follows the store; everything else
// belongs to the goroutine that called Watch.
type watcher struct {
	manager *Manager
	self    Lease
	apply   func([]Event)

	updates  chan update // the reader closes it when ctx ends
	set      *leaseSet
	removals *removalGuard
}

// update is one answer of the store: all leases, or changes.
type update struct {
	full   bool
	leases []*Lease
	events []Event
}

// fullUpdate makes an update of a list. Each lease becomes a value of its own,
// so that one that is kept does not keep the whole list in memory.
func fullUpdate(list []Lease) update {
	u := update{full: true, leases: make([]*Lease, 0, len(list))}
	for _, l := range list {
		u.leases = append(u.leases, &l)
	}
	return u
}

// run handles updates and due removals until the reader ends.
func (w *watcher) run() {
	due := time.NewTimer(0)
	due.Stop()
	defer due.Stop()
	for {
		select {
		case u, ok := <-w.updates:
			if !ok {
				return
			}
			w.handle(u)
		case <-due.C:
			w.deliver(w.removals.expire(time.Now(), len(w.set.peers)), false)
		}
		if at := w.removals.due; at.IsZero() {
			due.Stop()
		} else {
			due.Reset(time.Until(at))
		}
	}
}

func (w *watcher) handle(u update) {
	w.noticeOwn(u)
	var changes []Event
	if u.full {
		changes = w.set.replace(u.leases)
	} else {
		changes = w.set.update(u.events)
	}
	w.deliver(w.removals.filter(changes, time.Now()), u.full)
}

// deliver passes events to apply. full: they come from a list; the first list is
// applied even without events.
func (w *watcher) deliver(events []Event, full bool) {
	for _, e := range events {
		log.V(1).Infof("lease %v subnet=%v public_ip=%v", e.Type, e.Subnet(), e.Lease.Attrs.HostAddr())
	}
	if len(events) > 0 || full && !w.manager.Status().Synced {
		w.apply(events)
	}
	w.manager.setPeers(w.set.hosts+w.removals.hosts(), w.removals.held())
}

// noticeOwn wakes Renew if our key is gone, names another host or has other
// attributes than ours, or if another lease overlaps it.
func (w *watcher) noticeOwn(u update) {
	gone, changed, overlapped := u.full, u.full, false
	for _, l := range u.leases {
		switch {
		case w.ours(l):
			gone = false
			changed = !l.Attrs.Equal(w.manager.toPublish(w.self.Attrs))
		case l.Overlaps(w.self):
			overlapped = true
		}
	}
	for _, e := range u.events {
		switch {
		case e.Lease.Key() == w.self.Key():
			gone = e.Type == Removed
			changed = gone || !w.ours(e.Lease) || !e.Lease.Attrs.Equal(w.manager.toPublish(w.self.Attrs))
		case e.Type == Added && e.Lease.Overlaps(w.self):
			overlapped = true
		}
	}
	if gone {
		w.removals.selfGone = time.Now()
	}
	if changed || overlapped {
		w.manager.wakeRenew()
	}
}

// ours reports whether l is our own lease, perhaps from before a change of address.
func (w *watcher) ours(l *Lease) bool {
	return l.Key() == w.self.Key() && w.self.Attrs.SameHost(l.Attrs, w.manager.former)
}

// classify implements leaseSet.classify for this host.
func (w *watcher) classify(l *Lease, f inet.Family) (peer bool, fault error) {
	network, own := w.manager.config.RangeOf(f).Network, w.self.SubnetOf(f)
	switch {
	case w.ours(l) || !own.IsValid():
		return false, nil
	case l.SubnetOf(f).Overlaps(own): // promise: overlap-with-own-is-bad
		return false, fmt.Errorf("%v overlaps our own subnet %v", l, own)
	case l.Attrs.SameAddr(w.self.Attrs): // promise: own-address-elsewhere-is-bad
		return false, fmt.Errorf("%v names our own address", l)
	case !network.Contains(l.SubnetOf(f).Addr()): // a larger one overlaps our own subnet
		return false, fmt.Errorf("%v is outside Network %v", l, network)
	}
	return l.Attrs.BackendType == w.self.Attrs.BackendType, nil
}

// read follows the store until ctx ends. Each time the watch ends it lists again:
// the store may have been restored meanwhile, and no answer may show it. It does
// not if the store's position resumes.
func (w *watcher) read(ctx context.Context) {
	pauses := backoff.New()
	var at Position
	for listed := false; ; {
		if !listed {
			var err error
			if at, err = w.list(ctx); err != nil {
				return // only ctx ends a retry without a permanent error
			}
		}
		last := at.Rev
		err := w.manager.source.Watch(ctx, at, func(rev Rev, events []Event) {
			w.manager.record(nil)
			if rev > at.Rev { // a watch that breaks after its start is no success
				pauses.Reset()
			}
			last = rev
			if len(events) > 0 {
				w.send(ctx, update{events: events})
			}
		})
		if ctx.Err() != nil {
			return
		}
		w.manager.record(err)
		at.Rev, listed = last, false
		if at.Resumes && !errors.Is(err, ErrCompacted) { // promise: watch-resumes
			listed = true
		}
		ratelog.Warningf("watch leases: ended, go on resume=%t reason=%q", listed, err)
		select {
		case <-time.After(pauses.NextBackOff()):
		case <-ctx.Done():
			return
		}
	}
}

// list sends all leases, and returns the position to watch from.
func (w *watcher) list(ctx context.Context) (Position, error) {
	return backoff.Retry(ctx, "list leases", func() (Position, error) {
		leases, at, err := w.manager.source.List(ctx)
		if w.manager.record(err) == nil {
			w.send(ctx, fullUpdate(leases))
		}
		return at, err
	})
}

func (w *watcher) send(ctx context.Context, u update) {
	select {
	case w.updates <- u:
	case <-ctx.Done():
	}
}
