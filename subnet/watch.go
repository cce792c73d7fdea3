package subnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
)

// Watch tells apply about the peers' leases until ctx ends (nil). It keeps
// these guarantees:
//
//   - complete: the first call carries every live lease but our own, and comes
//     even when there are none.
//   - ordered: events come in the store's order.
//   - resync: after a loss of history, apply gets exactly the difference between
//     what it was told and what is true, changed attributes included.
//   - own: self's subnet, public IP and anything that overlaps is never
//     delivered; nor are subnets outside Network and leases of other backends.
//   - disjoint: no two peers' subnets overlap; of leases that do, one counts, on
//     all hosts the same. The others are skipped, counted and logged once.
//   - serial: apply is called from one goroutine, and not after Watch returned.
//
// While the store does not answer, the peers stay as they are.
func (m *Manager) Watch(ctx context.Context, self Lease, apply func([]Event)) error {
	w := watcher{Manager: m, self: self, apply: apply}
	w.set = newLeaseSet(w.judge, m.config.Allows, &m.bad)
	for {
		rev, err := backoff.Retry(ctx, "list leases", func() (Rev, error) { return w.resync(ctx) })
		if err != nil {
			return nil // only ctx ends a retry without a permanent error
		}
		if w.follow(ctx, rev) != nil {
			return nil
		}
	}
}

// watcher is one run of Watch; a single goroutine uses it.
type watcher struct {
	*Manager
	self  Lease
	apply func([]Event)
	set   *leaseSet
}

// resync lists all leases, delivers the difference, and returns the revision
// to follow from.
func (w *watcher) resync(ctx context.Context) (Rev, error) {
	leases, rev, err := w.reg.List(ctx)
	if w.answered(err) != nil {
		return 0, err
	}
	held := false
	for _, l := range leases {
		held = held || w.ours(l)
	}
	if !held {
		w.wakeRenew()
	}
	events := w.set.replace(leases)
	if len(events) > 0 || !w.Status().Synced {
		w.deliver(events)
	}
	return rev, nil
}

// follow delivers changes from rev on, over failures of the watch, until the
// store has lost that part of its history (nil) or ctx ends (its error).
func (w *watcher) follow(ctx context.Context, rev Rev) error {
	b := backoff.New()
	for {
		err := w.reg.Watch(ctx, rev, func(r Rev, events []Event) {
			w.answered(nil)
			b.Reset()
			rev = r
			w.noticeOwn(events)
			if changes := w.set.update(events); len(changes) > 0 {
				w.deliver(changes)
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
		log.Warningf("watch leases: broken, resume rev=%d pause=%v reason=%q", rev, pause.Round(time.Millisecond), err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) deliver(events []Event) {
	for _, e := range events {
		log.V(1).Infof("lease %v subnet=%v public_ip=%v", e.Type, e.Lease.Subnet, e.Lease.Attrs.PublicIP)
	}
	w.apply(events)
	w.setPeers(len(w.set.peers))
}

// noticeOwn wakes Renew when our key was deleted, or written as another's.
func (w *watcher) noticeOwn(events []Event) {
	for _, e := range events {
		if e.Lease.Subnet == w.self.Subnet && (e.Type == Removed || !w.ours(e.Lease)) {
			w.wakeRenew()
		}
	}
}

func (w *watcher) ours(l Lease) bool {
	return l.Subnet == w.self.Subnet && l.Attrs.PublicIP == w.self.Attrs.PublicIP
}

// judge is the leaseSet's.
func (w *watcher) judge(l Lease) (peer bool, fault error) {
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

func (w *watcher) wakeRenew() {
	select {
	case w.ownChanged <- struct{}{}:
	default: // it has been told
	}
}

// WaitConfig returns the network configuration, waiting for the store and for
// the configuration as long as it takes. A configuration that breaks a rule is
// an error at once: it does not mend itself. Errors: a *ConfigError or a JSON
// error, or ctx's.
func WaitConfig(ctx context.Context, reg Registry) (*Config, error) {
	data, err := backoff.Retry(ctx, "wait for network configuration", func() ([]byte, error) {
		return reg.Config(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("wait for network configuration: %w", err)
	}
	return ParseConfig(data)
}
