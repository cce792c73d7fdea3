package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/subnet"
)

// Acquire implements subnet.Holder. It takes the subnet that this host holds
// already, by its public IP, or by its NodeID after a change of address; else
// hints.Previous, if that is free; else a free one at random, with
// hints.Remembered last.
func (h *Holder) Acquire(ctx context.Context, attrs subnet.Attrs, hints subnet.Hints) (subnet.Lease, error) {
	a := acquisition{Holder: h, attrs: attrs, hints: hints, answered: time.Now()}
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
var errYielded = errors.New("gave way to an older lease")

// acquisition is one call of Acquire. Each pass begins with a list of all leases:
//
//	list ─► a lease of ours ─► challenge, if identities conflict ─► update ─► done
//	     ├► a creation of ours that overlaps an older lease ─► delete ─► list
//	     └► none ─► create ─► verify ─┬► alone ─► done
//	                                  └► an older lease overlaps ─► delete ─► list
//
// ErrExists, ErrConflict and errYielded of any step mean that another host was
// faster; they lead back to the list.
type acquisition struct {
	*Holder
	attrs subnet.Attrs
	hints subnet.Hints
	// answered is when the store answered last.
	answered time.Time
	// attempted is the subnet of the last Create, whose outcome may be unknown.
	attempted netip.Prefix
	// occupied are keys that exist though List did not return them: another host
	// was faster, or the key's value does not parse.
	occupied []netip.Prefix
}

// record reports the outcome of a call to the store, and returns it.
func (a *acquisition) record(err error) error {
	if subnet.IsAnswer(err) {
		a.answered = time.Now()
	}
	if a.hints.Report != nil {
		a.hints.Report(err)
	}
	return err
}

// attempt makes passes until one succeeds or fails for another reason than a
// faster host.
func (a *acquisition) attempt(ctx context.Context) (subnet.Lease, error) {
	for {
		l, err := a.pass(ctx)
		if !errors.Is(err, subnet.ErrExists) && !errors.Is(err, subnet.ErrConflict) && !errors.Is(err, errYielded) {
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
		if older, ok := olderOverlap(leases, leases[i]); ok {
			return subnet.Lease{}, a.yield(ctx, leases[i], older)
		}
	}
	l, ok, err := a.reuse(ctx, leases)
	if ok || err != nil {
		return l, err
	}
	if l, err = a.create(ctx, leases); err != nil {
		return subnet.Lease{}, err
	}
	if err := a.verify(ctx, l); err != nil {
		return subnet.Lease{}, err
	}
	log.Infof("created lease subnet=%v same_as_before=%v", l.Subnet, l.Subnet == a.hints.Previous)
	return l, nil
}

// created reports whether l is the result of our last Create.
func (a *acquisition) created(l subnet.Lease) bool {
	return a.attempted.IsValid() && l.Subnet == a.attempted && l.Attrs.PublicIP == a.attrs.PublicIP && !l.IPv6Subnet.IsValid()
}

// reuse takes the lease that is ours already, and removes one that the
// configuration no longer allows. ok is false if there is none to take.
func (a *acquisition) reuse(ctx context.Context, leases []subnet.Lease) (taken subnet.Lease, ok bool, err error) {
	for _, l := range a.candidates(leases) {
		if identityConflict(l, a.attrs) { // promise: one-host-an-address
			if l, err = a.challenge(ctx, l); err != nil {
				return subnet.Lease{}, false, err
			}
		}
		// A run that ended between create and verify has not recorded its subnet.
		older, overlaps := olderOverlap(leases, l)
		switch {
		case overlaps && l.Subnet != a.hints.Previous && !l.Reserved:
			return subnet.Lease{}, false, a.yield(ctx, l, older)
		case a.config.Allows(l.Subnet):
			l.Attrs = a.attrs
			taken, err := a.keyspace.Update(ctx, l, a.ttl)
			if a.record(err) != nil {
				return subnet.Lease{}, false, fmt.Errorf("take over lease %v: %w", l.Subnet, err)
			}
			log.Infof("took over own lease subnet=%v reserved=%v", taken.Subnet, taken.Reserved)
			return taken, true, nil
		case !l.Reserved:
			log.Infof("delete own lease subnet=%v: the configuration no longer allows it", l.Subnet)
			if err := a.record(a.keyspace.Delete(ctx, l)); err != nil {
				return subnet.Lease{}, false, fmt.Errorf("delete lease %v: %w", l.Subnet, err)
			}
		}
	}
	return subnet.Lease{}, false, nil
}

// create writes the key of a free subnet: the previous one, or one at random.
func (a *acquisition) create(ctx context.Context, leases []subnet.Lease) (subnet.Lease, error) {
	taken := slices.Clone(a.occupied)
	for _, l := range leases {
		taken = append(taken, l.Subnet)
	}
	choice := a.hints.Previous
	if !a.config.Allows(choice) || overlapsAny(choice, taken) {
		var err error
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

// verify checks that l, which we just created, overlaps no older lease. Create
// fails only if the same key exists: while SubnetLen is being changed, another
// host may create a key of another length. The later of both hosts sees both
// leases and yields.
func (a *acquisition) verify(ctx context.Context, l subnet.Lease) error {
	leases, err := a.keyspace.Overlapping(ctx, l.Subnet)
	if a.record(err) != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	i := slices.IndexFunc(leases, func(stored subnet.Lease) bool { return a.created(stored) && stored.Rev == l.Rev })
	if i < 0 {
		return fmt.Errorf("verify lease %v: %w", l.Subnet, subnet.ErrConflict)
	}
	if older, ok := olderOverlap(leases, leases[i]); ok { // promise: older-overlap-wins
		return a.yield(ctx, leases[i], older)
	}
	return nil
}

// yield deletes own, which overlaps older. It never returns nil.
func (a *acquisition) yield(ctx context.Context, own, older subnet.Lease) error {
	if err := a.record(a.keyspace.Delete(ctx, own)); err != nil {
		return fmt.Errorf("delete lease %v: %w", own.Subnet, err)
	}
	return fmt.Errorf("%v overlaps %v: %w", own.Subnet, older, errYielded)
}

// candidates returns the leases that may be ours, those with our address first:
// one with our NodeID only may be a clone's.
func (a *acquisition) candidates(leases []subnet.Lease) (ours []subnet.Lease) {
	first := 0
	for _, l := range leases {
		switch {
		case !a.mayBeOurs(l):
		case l.Attrs.PublicIP == a.attrs.PublicIP:
			ours = slices.Insert(ours, first, l)
			first++
		default:
			ours = append(ours, l)
		}
	}
	return ours
}

// olderOverlap returns a lease of another host that overlaps own and is older.
func olderOverlap(leases []subnet.Lease, own subnet.Lease) (older subnet.Lease, ok bool) {
	for _, l := range leases {
		if l.Subnet != own.Subnet && l.Subnet.Overlaps(own.Subnet) && l.Rev < own.Rev && l.Attrs.PublicIP != own.Attrs.PublicIP {
			return l, true
		}
	}
	return subnet.Lease{}, false
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
