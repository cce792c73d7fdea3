package subnet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/ratelog"
)

// Watch tells apply about the peers' leases until ctx ends (nil). It keeps
// these guarantees:
//
//   - complete: the first call carries every live lease but our own, and comes
//     even when there are none. After Adopt, it carries the last known ones.
//   - ordered: each call leads from one state of the store to a later one.
//   - resync: after a loss of history, apply gets exactly the difference between
//     what it was told and what is true, changed attributes included.
//   - own: self's subnet, public IP and anything that overlaps is never
//     delivered; nor are subnets outside Network and leases of other backends.
//   - disjoint: no two peers' subnets overlap; of leases that do, one counts, on
//     all hosts the same. The others are skipped, counted and logged once.
//   - held: when more than half of all leases vanish at once, they stay peers
//     until they come back, or two minutes are over.
//   - serial: apply is called from one goroutine, and not after Watch returned.
//
// While the store does not answer, the peers stay as they are.
func (m *Manager) Watch(ctx context.Context, self Lease, apply func([]Event)) error {
	w := watcher{Manager: m, self: self, apply: apply, departures: newDepartures(), news: make(chan news)}
	w.set = newLeaseSet(w.judge, m.config.allows, &m.bad)
	if m.adopted != nil {
		w.tell(w.set.replace(m.adopted))
		m.adopted = nil
	}
	var reader sync.WaitGroup
	defer reader.Wait()
	reader.Go(func() {
		defer close(w.news)
		w.read(ctx)
	})
	w.run()
	return nil
}

// watcher is one run of Watch. Its reader follows the store; all else belongs
// to the goroutine that called Watch.
type watcher struct {
	*Manager
	self  Lease
	apply func([]Event)

	// news is closed when the reader has ended, with ctx.
	news       chan news
	set        *leaseSet
	departures *departures
}

// news is what the store says: all leases, or what has happened to some.
type news struct {
	full   bool
	leases []*Lease
	events []Event
}

// all makes news of a list; each lease becomes a value of its own, so that one
// that stays does not keep the others.
func all(list []Lease) news {
	n := news{full: true, leases: make([]*Lease, 0, len(list))}
	for _, l := range list {
		n.leases = append(n.leases, &l)
	}
	return n
}

// run takes news, and decides about removals when it is time, until the reader
// ends.
func (w *watcher) run() {
	settle := time.NewTimer(0)
	settle.Stop()
	defer settle.Stop()
	for {
		select {
		case n, ok := <-w.news:
			if !ok {
				return
			}
			w.take(n)
		case <-settle.C:
			w.deliver(w.departures.settle(time.Now(), len(w.set.peers)))
		}
		if due := w.departures.due; due.IsZero() {
			settle.Stop()
		} else {
			settle.Reset(time.Until(due))
		}
	}
}

func (w *watcher) take(n news) {
	w.noticeOwn(n)
	if !n.full {
		w.deliver(w.departures.pass(w.set.update(n.events), time.Now()))
		return
	}
	w.tell(w.set.replace(n.leases))
}

// tell delivers what a full set of leases changes; the first is delivered even
// if it is empty.
func (w *watcher) tell(events []Event) {
	events = w.departures.pass(events, time.Now())
	if !w.Status().Synced {
		w.deliverAll(events)
		return
	}
	w.deliver(events)
}

func (w *watcher) deliver(events []Event) {
	if len(events) > 0 {
		w.deliverAll(events)
		return
	}
	w.setPeers(len(w.set.peers)+len(w.departures.gone), w.departures.held())
}

func (w *watcher) deliverAll(events []Event) {
	for _, e := range events {
		log.V(1).Infof("lease %v subnet=%v public_ip=%v", e.Type, e.Lease.Subnet, e.Lease.Attrs.PublicIP)
	}
	w.apply(events)
	w.setPeers(len(w.set.peers)+len(w.departures.gone), w.departures.held())
}

// noticeOwn wakes Renew when our key is gone, or was written as another's, or
// says anything else than we do.
func (w *watcher) noticeOwn(n news) {
	gone, lost := n.full, n.full
	for _, l := range n.leases {
		if w.ours(l) {
			gone = false
			lost = !l.Attrs.Equal(w.current(w.self.Attrs))
		}
	}
	for _, e := range n.events {
		if e.Lease.Key() == w.self.Key() {
			gone = e.Type == Removed
			lost = gone || !w.ours(e.Lease) || !e.Lease.Attrs.Equal(w.current(w.self.Attrs))
		}
	}
	if gone {
		w.departures.selfGone = time.Now()
	}
	if lost {
		w.wakeRenew()
	}
}

// ours tells our own lease: it has our address, or is what we wrote before we
// had that address.
func (w *watcher) ours(l *Lease) bool {
	return l.Key() == w.self.Key() && (w.names(l.Attrs, w.self.Attrs) || l.Rev == w.self.Rev)
}

// judge is the leaseSet's.
func (w *watcher) judge(l *Lease) (peer bool, fault error) {
	network := w.config.Network
	switch {
	case w.ours(l):
		return false, nil
	case l.Subnet.Overlaps(w.self.Subnet):
		return false, fmt.Errorf("%v overlaps our own subnet %v", l, w.self.Subnet)
	case l.Attrs.PublicIP == w.self.Attrs.PublicIP:
		return false, fmt.Errorf("%v names our own address", l)
	case !network.Contains(l.Subnet.Addr()): // one that is larger holds our own subnet
		return false, fmt.Errorf("%v is outside Network %v", l, network)
	}
	return l.Attrs.BackendType == w.self.Attrs.BackendType, nil
}

// read follows the store until ctx ends.
func (w *watcher) read(ctx context.Context) {
	for {
		rev, err := backoff.Retry(ctx, "list leases", func() (Rev, error) {
			leases, rev, err := w.reg.List(ctx)
			if w.answered(err) == nil {
				w.send(ctx, all(leases))
			}
			return rev, err
		})
		if err != nil || w.follow(ctx, rev) != nil {
			return // only ctx ends a retry without a permanent error
		}
	}
}

// follow passes on changes from rev on, over failures of the watch, until the
// store has lost that part of its history (nil) or ctx ends (its error).
func (w *watcher) follow(ctx context.Context, rev Rev) error {
	b := backoff.New()
	var said time.Time
	for {
		err := w.reg.Watch(ctx, rev, func(r Rev, events []Event) {
			w.answered(nil)
			if r > rev { // not for a watch that is taken up only to break
				b.Reset()
			}
			rev = r
			if len(events) > 0 {
				w.send(ctx, news{events: events})
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(w.answered(err), ErrCompacted) {
			log.Infof("watch leases: history is gone, list again rev=%d", rev)
			return nil
		}
		pause := b.NextBackOff()
		if now := time.Now(); now.Sub(said) >= backoff.LogInterval {
			said = now
			ratelog.Warningf("watch leases: broken, resume rev=%d reason=%q", rev, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) send(ctx context.Context, n news) {
	select {
	case w.news <- n:
	case <-ctx.Done():
	}
}
