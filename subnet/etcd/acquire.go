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
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Acquire implements subnet.Holder. It takes, in this order: the subnet of the lease
// with this host's NodeID; that of a lease with its public IP and no NodeID, as
// other flannels write it; hints.Previous, if that is free; that of a dead host
// that had this public IP; a free one at random, with hints.Remembered last. A
// living host with this public IP is an error (subnet.ErrAddressInUse).
//
// The lease gets a part of each family that the configuration enables and hints do
// not exclude. A lease of this host with other parts keeps those that it may, and
// moves to another key. Without a free IPv6 subnet it has its IPv4 part alone.
func (h *Holder) Acquire(ctx context.Context, attrs subnet.Attrs, hints subnet.Hints, report func(error)) (subnet.Lease, error) {
	a := acquisition{Holder: h, attrs: attrs, hints: hints, report: report, answered: time.Now(), silent: make(map[string]subnet.Lease)}
	l, err := backoff.Retry(ctx, "acquire subnet", func() (subnet.Lease, error) {
		l, err := a.attempt(ctx)
		switch {
		case slices.ContainsFunc(final, func(target error) bool { return errors.Is(err, target) }):
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

// final are the errors of Acquire that another attempt does not change.
var final = []error{subnet.ErrFull, subnet.ErrAddressInUse, subnet.ErrCloned, errors.ErrUnsupported}

// errYielded: we deleted a lease of ours that overlaps an older one.
var errYielded = fmt.Errorf("gave way to an older lease: %w", subnet.ErrConflict)

// acquisition is one call of Acquire. Each pass begins with a list of all leases:
//
//	list ─► ours overlaps an older lease ─► delete ─► list
//	     ├► ours ─► challenge, if only the NodeID is ours ─► update, or move to a key
//	     │          with other parts ─► challenge other holders of our public IP ─► done
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
	// attempted is the key of the last Create, whose outcome may be unknown.
	attempted string
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
	if !a.previousIsFree(leases) {
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
	log.Infof("created lease subnet=%s same_as_before=%v", l.Subnets(), l.Subnet == a.hints.Previous && l.IPv6Subnet == a.hints.PreviousIPv6)
	return l, nil
}

// created reports whether l is the result of our last Create.
func (a *acquisition) created(l subnet.Lease) bool {
	return l.Key() == a.attempted && l.Attrs.SameAddr(a.attrs) && l.Attrs.SameOwner(a.attrs)
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
		taken, err := a.takeOver(ctx, leases, l)
		switch {
		case err != nil:
			return subnet.Lease{}, false, fmt.Errorf("take over lease %s: %w", l.Subnets(), err)
		case taken.IsValid():
			log.Infof("took over own lease subnet=%s reserved=%v", taken.Subnets(), taken.Reserved)
			return taken, true, nil
		case !l.Reserved:
			log.Infof("delete own lease subnet=%s: the configuration, or another network of this host, no longer allows it", l.Subnets())
			if err := a.record(a.keyspace.Delete(ctx, l)); err != nil {
				return subnet.Lease{}, false, fmt.Errorf("delete lease %s: %w", l.Subnets(), err)
			}
		}
	}
	return subnet.Lease{}, false, nil
}

// takeOver stores our attributes with l, which is ours. If l has not the parts that
// it should have, takeOver moves it to another key. The result is invalid if no
// part of l can stay.
func (a *acquisition) takeOver(ctx context.Context, leases []subnet.Lease, l subnet.Lease) (subnet.Lease, error) {
	next := subnet.Lease{Attrs: a.attrs}
	for _, f := range a.families() {
		p := l.SubnetOf(f)
		if _, lost := olderOverlap(leases, l, f); a.allows(p) && !lost {
			next = next.WithSubnet(p)
		}
	}
	if !next.IsValid() {
		return subnet.Lease{}, nil
	}
	next, err := a.complete(ctx, next, leases)
	switch {
	case err != nil:
		return subnet.Lease{}, err
	case next.Key() == l.Key():
		taken, err := a.keyspace.Update(ctx, l, a.attrs, a.ttl)
		return taken, a.record(err)
	}
	log.Infof("move own lease from=%s to=%s", l.Subnets(), next.Subnets())
	moved, err := a.keyspace.Move(ctx, l, next, a.ttl) // promise: ipv4-subnet-stays
	if errors.Is(err, subnet.ErrExists) {
		a.occupy(next)
	}
	if a.record(err) != nil {
		return subnet.Lease{}, err
	}
	return moved, a.record(a.verify(ctx, moved))
}

// families returns the families that the lease should have.
func (a *acquisition) families() []inet.Family {
	return slices.DeleteFunc(a.config.Families(), func(f inet.Family) bool { return slices.Contains(a.hints.Without, f) })
}

// complete adds the parts to l that it lacks. Without a free IPv6 subnet, a lease
// with an IPv4 part stays without one.
func (a *acquisition) complete(ctx context.Context, l subnet.Lease, leases []subnet.Lease) (subnet.Lease, error) {
	for _, f := range a.families() {
		if l.SubnetOf(f).IsValid() {
			continue
		}
		p, err := a.choose(f, leases)
		switch {
		case err == nil:
			l = l.WithSubnet(p)
		case f == inet.IPv6 && l.Subnet.IsValid(): // promise: full-ipv6-costs-no-ipv4
			log.Errorf("go on without an IPv6 subnet: %v", a.fullError(ctx, f, leases))
		default:
			return subnet.Lease{}, a.fullError(ctx, f, leases)
		}
	}
	return l, nil
}

// allows reports whether p is a subnet that this host may have.
func (a *acquisition) allows(p netip.Prefix) bool {
	if !p.IsValid() {
		return false
	}
	f := inet.Of(p.Addr())
	return a.config.RangeOf(f).Allows(p) && (p == a.previous(f) || !overlapsAny(p, a.unusable()))
}

// previous returns the subnet of the last run of a family.
func (a *acquisition) previous(f inet.Family) netip.Prefix {
	if f == inet.IPv4 {
		return a.hints.Previous
	}
	return a.hints.PreviousIPv6
}

// unusable returns the networks of this host that its subnets must not overlap.
func (a *acquisition) unusable() []netip.Prefix { return slices.Collect(maps.Keys(a.hints.Unusable)) }

// free reports whether this host may have p and no lease overlaps it.
func (a *acquisition) free(p netip.Prefix, leases []subnet.Lease) bool {
	return a.allows(p) && !overlapsAny(p, a.taken(leases))
}

// previousIsFree reports whether this host may have its previous subnet of the
// family that decides about the lease.
func (a *acquisition) previousIsFree(leases []subnet.Lease) bool {
	families := a.families()
	return len(families) > 0 && a.free(a.previous(families[0]), leases)
}

// taken returns the subnets of both families that cannot be created.
func (a *acquisition) taken(leases []subnet.Lease) []netip.Prefix {
	taken := slices.Clone(a.occupied)
	for _, l := range leases {
		taken = append(taken, l.Parts()...)
	}
	return taken
}

// choose returns a free subnet of a family: the previous one, or one at random.
// Errors: subnet.ErrFull.
func (a *acquisition) choose(f inet.Family, leases []subnet.Lease) (netip.Prefix, error) {
	if previous := a.previous(f); a.free(previous, leases) {
		return previous, nil
	}
	taken := slices.Concat(a.taken(leases), a.unusable())
	choice, err := pick(a.config.RangeOf(f), slices.Concat(taken, a.hints.Remembered), newRand()) // promise: remembered-subnets-come-last
	if errors.Is(err, subnet.ErrFull) {
		choice, err = pick(a.config.RangeOf(f), taken, newRand())
	}
	return choice, err
}

// create writes the key of free subnets.
func (a *acquisition) create(ctx context.Context, leases []subnet.Lease) (subnet.Lease, error) {
	l, err := a.complete(ctx, subnet.Lease{Attrs: a.attrs}, leases)
	if err != nil {
		return subnet.Lease{}, err
	}
	a.attempted = l.Key()
	created, err := a.keyspace.Create(ctx, l, a.ttl)
	if errors.Is(err, subnet.ErrExists) {
		a.occupy(l)
	}
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("create lease %s: %w", l.Subnets(), err)
	}
	return created, nil
}

// occupy notes that the key of l's subnets exists.
func (a *acquisition) occupy(l subnet.Lease) {
	a.occupied = append(a.occupied, l.Parts()...)
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
