package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/subnet"
)

// Acquire implements subnet.Holder. It takes, in this order: the subnet of the lease
// with this host's NodeID; that of a lease with its public IP and no NodeID, as
// other flannels write it; hints.Previous, if that is free; that of a dead host
// that had this public IP; a free one at random, with hints.Remembered last. A
// living host with this public IP is an error (subnet.ErrAddressInUse).
func (h *Holder) Acquire(ctx context.Context, attrs subnet.Attrs, hints subnet.Hints, report func(error)) (subnet.Lease, error) {
	a := acquisition{Holder: h, attrs: attrs, hints: hints, report: report, answered: time.Now(), silent: make(map[string]subnet.Lease)}
	l, err := backoff.Retry(ctx, "acquire subnet", func() (subnet.Lease, error) {
		l, err := a.attempt(ctx)
		switch {
		case errors.Is(err, subnet.ErrFull) || errors.Is(err, subnet.ErrAddressInUse) || errors.Is(err, subnet.ErrCloned):
			err = backoff.Permanent(err)
		case err != nil && hints.StoreTimeout > 0 && time.Since(a.answered) >= hints.StoreTimeout:
			err = backoff.Permanent(fmt.Errorf("%w: %w", subnet.ErrStoreTimeout, err))
		}
		return l, err
	})
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("acquire subnet: %w", err)
	}
	return l, nil
}

// errYielded: we deleted a lease of ours that overlaps an older one.
var errYielded = fmt.Errorf("gave way to an older lease: %w", subnet.ErrConflict)

// acquisition is one call of Acquire. Each pass begins with a list of all leases:
//
//	list ─► ours overlaps an older lease ─► delete ─► list
//	     ├► ours ─► challenge, if only the NodeID is ours ─► update ─► challenge other
//	     │          holders of our public IP ─► done
//	     └► none ─► challenge other holders of our public IP
//	                ├► one is dead, and no previous subnet is free ─► update ─► done
//	                └► create ─► verify ─┬► alone ─► done
//	                                     └► an older lease overlaps ─► delete ─► list
//
// ErrExists and ErrConflict of any step mean that another host was faster; they lead
// back to the list.
type acquisition struct {
	*Holder
	attrs  subnet.Attrs
	report func(error)
	hints  subnet.Hints
	// answered is when the store answered last.
	answered time.Time
	// attempted is the subnet of the last Create, whose outcome may be unknown.
	attempted netip.Prefix
	// occupied are keys that exist though List did not return them: another host
	// was faster, or the key's value does not parse.
	occupied []netip.Prefix
	// silent are leases whose holders did not answer a challenge, by key, as the
	// challenge left them.
	silent map[string]subnet.Lease
}

// record reports the outcome of a call to the store, and returns it.
func (a *acquisition) record(err error) error {
	if subnet.IsAnswer(err) {
		a.answered = time.Now()
	}
	a.report(err)
	return err
}

// attempt makes passes until one succeeds or fails for another reason than a
// faster host.
func (a *acquisition) attempt(ctx context.Context) (subnet.Lease, error) {
	for {
		l, err := a.pass(ctx)
		if !errors.Is(err, subnet.ErrExists) && !errors.Is(err, subnet.ErrConflict) {
			return l, err
		}
		log.Infof("another host was faster, choose again: %v", err)
	}
}

func (a *acquisition) pass(ctx context.Context) (subnet.Lease, error) {
	leases, _, err := a.keyspace.List(ctx)
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("list leases: %w", err)
	}
	if i := slices.IndexFunc(leases, a.created); i >= 0 {
		if err := a.yieldToOlder(ctx, leases[i], leases); a.record(err) != nil {
			return subnet.Lease{}, err
		}
	}
	l, ok, err := a.takeOne(ctx, leases, a.ours(leases))
	if err != nil {
		return subnet.Lease{}, err
	}
	dead, err := a.challengeAll(ctx, a.ofOurAddress(leases))
	if ok || err != nil {
		return l, err
	}
	if !a.free(a.hints.Previous, leases) {
		if l, ok, err = a.takeOne(ctx, leases, dead); ok || err != nil {
			return l, err
		}
	}
	if l, err = a.create(ctx, leases); err != nil {
		return subnet.Lease{}, err
	}
	if err := a.record(a.verify(ctx, l)); err != nil {
		return subnet.Lease{}, err
	}
	log.Infof("created lease subnet=%v same_as_before=%v", l.Subnet, l.Subnet == a.hints.Previous)
	return l, nil
}

// created reports whether l is the result of our last Create.
func (a *acquisition) created(l subnet.Lease) bool {
	return a.attempted.IsValid() && l.Subnet == a.attempted && l.Attrs.PublicIP == a.attrs.PublicIP &&
		l.Attrs.SameOwner(a.attrs) && !l.IPv6Subnet.IsValid()
}

// takeOne takes the first of candidates that the configuration allows, and removes
// those before it. ok is false if there is none to take.
func (a *acquisition) takeOne(ctx context.Context, leases, candidates []subnet.Lease) (taken subnet.Lease, ok bool, err error) {
	for _, l := range candidates {
		if l, err = a.settle(ctx, l); err != nil {
			return subnet.Lease{}, false, err
		}
		// A run that ended between create and verify leaves such a lease.
		if err := a.yieldToOlder(ctx, l, leases); a.record(err) != nil {
			return subnet.Lease{}, false, err
		}
		switch {
		case a.allows(l.Subnet):
			taken, err := a.keyspace.Update(ctx, l, a.attrs, a.ttl)
			if a.record(err) != nil {
				return subnet.Lease{}, false, fmt.Errorf("take over lease %v: %w", l.Subnet, err)
			}
			log.Infof("took over own lease subnet=%v reserved=%v", taken.Subnet, taken.Reserved)
			return taken, true, nil
		case !l.Reserved:
			log.Infof("delete own lease subnet=%v: the configuration, or another network of this host, no longer allows it", l.Subnet)
			if err := a.record(a.keyspace.Delete(ctx, l)); err != nil {
				return subnet.Lease{}, false, fmt.Errorf("delete lease %v: %w", l.Subnet, err)
			}
		}
	}
	return subnet.Lease{}, false, nil
}

// allows reports whether p is a subnet that this host may have.
func (a *acquisition) allows(p netip.Prefix) bool {
	return a.config.Allows(p) && (p == a.hints.Previous || !overlapsAny(p, a.unusable()))
}

// unusable returns the networks of this host that its subnet must not overlap.
func (a *acquisition) unusable() []netip.Prefix { return slices.Collect(maps.Keys(a.hints.Unusable)) }

// free reports whether this host may have p and no lease overlaps it.
func (a *acquisition) free(p netip.Prefix, leases []subnet.Lease) bool {
	return a.allows(p) && !overlapsAny(p, a.taken(leases))
}

// taken returns the subnets that cannot be created.
func (a *acquisition) taken(leases []subnet.Lease) []netip.Prefix {
	taken := slices.Clone(a.occupied)
	for _, l := range leases {
		taken = append(taken, l.Subnet)
	}
	return taken
}

// create writes the key of a free subnet: the previous one, or one at random.
func (a *acquisition) create(ctx context.Context, leases []subnet.Lease) (subnet.Lease, error) {
	choice := a.hints.Previous
	if !a.free(choice, leases) {
		taken, err := slices.Concat(a.taken(leases), a.unusable()), error(nil)
		choice, err = pick(a.config, slices.Concat(taken, a.hints.Remembered), newRand()) // promise: remembered-subnets-come-last
		if errors.Is(err, subnet.ErrFull) {
			choice, err = pick(a.config, taken, newRand())
		}
		if err != nil {
			return subnet.Lease{}, a.fullError(ctx, leases)
		}
	}
	a.attempted = choice
	l, err := a.keyspace.Create(ctx, subnet.Lease{Subnet: choice, Attrs: a.attrs}, a.ttl)
	if errors.Is(err, subnet.ErrExists) {
		a.occupied = append(a.occupied, choice)
	}
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %v: %w", choice, err)
	}
	return l, nil
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
