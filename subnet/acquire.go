package subnet

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
)

// ErrSilent: the store has not answered for Terms.Patience.
var ErrSilent = errors.New("the store does not answer")

// Acquire takes a subnet for the host that attrs describes: the one that it
// holds already, by its public IP, or by its NodeID after a change of address;
// else prev, if that is free; else a free one at random. One of others, and one
// that the store's history names, is taken only where there is no other: those
// are subnets that hosts had which may come back for them. When another host is
// faster, it chooses again; while the store does not answer, it waits, as long
// as Terms.Patience allows. Errors: ErrFull, ErrAddressInUse, ErrCloned,
// ErrSilent, or ctx's.
func (m *Manager) Acquire(ctx context.Context, attrs Attrs, prev netip.Prefix, others ...netip.Prefix) (Lease, error) {
	a := acquisition{Manager: m, attrs: attrs, prev: prev, others: others}
	l, err := backoff.Retry(ctx, "acquire subnet", func() (Lease, error) {
		l, err := a.try(ctx)
		switch {
		case errors.Is(err, ErrFull) || errors.Is(err, ErrAddressInUse) || errors.Is(err, ErrCloned):
			err = backoff.Permanent(err)
		case err != nil && m.terms.Patience > 0 && m.silence() >= m.terms.Patience:
			err = backoff.Permanent(fmt.Errorf("%w: %w", ErrSilent, err))
		}
		return l, err
	})
	if err != nil {
		return Lease{}, fmt.Errorf("acquire subnet: %w", err)
	}
	m.setLease(l)
	return l, nil
}

// acquisition is one host's attempt to get a subnet.
type acquisition struct {
	*Manager
	attrs Attrs
	prev  netip.Prefix
	// others are handed out last. They hold what the store's history tells, too,
	// once it was asked.
	others []netip.Prefix
	asked  bool
	// refused are keys that Create found taken though List did not show them:
	// another host was faster, or the key's value does not parse.
	refused []netip.Prefix
	// tried is the subnet that we last tried to create, and made the lease that
	// came of it, as far as the answer arrived.
	tried netip.Prefix
	made  Lease
}

func (a *acquisition) try(ctx context.Context) (Lease, error) {
	for {
		leases, rev, all, err := a.look(ctx)
		if a.answered(err) != nil {
			return Lease{}, fmt.Errorf("list leases: %w", err)
		}
		older, doubled := a.doubled(leases)
		var l Lease
		switch {
		case doubled:
			err = a.yield(ctx, leases[slices.IndexFunc(leases, a.created)], older)
			if err == nil {
				continue
			}
		case a.confirmed(leases):
			log.Infof("created lease subnet=%v same_as_before=%v", a.made.Subnet, a.made.Subnet == a.prev)
			return a.made, nil
		case !all:
			a.made = Lease{} // somebody has changed it since: look at everything
			continue
		default:
			if l, err = a.reuse(ctx, leases); err == nil && !l.Subnet.IsValid() {
				if err = a.create(ctx, leases, rev); err == nil {
					continue // the next look shows whether we are alone there
				}
			}
		}
		if errors.Is(err, ErrExists) || errors.Is(err, ErrLost) {
			log.Infof("another host was faster, choose again: %v", err)
			continue
		}
		return l, err
	}
}

// look reads all leases, of revision rev; or what overlaps the one that we have
// just made, which is all that matters then.
func (a *acquisition) look(ctx context.Context) (leases []Lease, rev Rev, all bool, err error) {
	if a.made.Subnet.IsValid() {
		leases, err = a.reg.Overlapping(ctx, a.made.Subnet)
		return leases, 0, false, err
	}
	leases, rev, err = a.reg.List(ctx)
	return leases, rev, true, err
}

// reuse takes over the lease that is ours already, and removes one that the
// configuration no longer allows. It returns the zero Lease if there
// is none to take over.
func (a *acquisition) reuse(ctx context.Context, leases []Lease) (Lease, error) {
	// Those of our address first: one that has only our NodeID may be a clone's.
	ours := slices.Concat(filter(leases, func(l Lease) bool { return a.claims(l) && l.Attrs.PublicIP == a.attrs.PublicIP }),
		filter(leases, func(l Lease) bool { return a.claims(l) && l.Attrs.PublicIP != a.attrs.PublicIP }))
	for _, l := range ours {
		if strange(l, a.attrs) {
			var err error
			if l, err = a.claim(ctx, l); err != nil {
				return Lease{}, err
			}
		}
		// A run that ended before it looked once more did not write its subnet down.
		older, is := overlapped(leases, l)
		switch {
		case is && l.Subnet != a.prev && !l.Reserved:
			if err := a.yield(ctx, l, older); err != nil {
				return Lease{}, err
			}
		case a.config.allows(l.Subnet):
			l.Attrs = a.attrs
			taken, err := a.reg.Update(ctx, l, a.terms.TTL)
			if a.answered(err) != nil {
				return Lease{}, fmt.Errorf("take over lease %v: %w", l.Subnet, err)
			}
			log.Infof("took over own lease subnet=%v reserved=%v", taken.Subnet, taken.Reserved)
			return taken, nil
		case !l.Reserved:
			log.Infof("delete own lease subnet=%v: the configuration no longer allows it", l.Subnet)
			if err := a.answered(a.reg.Delete(ctx, l)); err != nil {
				return Lease{}, fmt.Errorf("delete lease %v: %w", l.Subnet, err)
			}
		}
	}
	return Lease{}, nil
}

// doubled returns a lease that overlaps the one that we have just created, and
// is older. The key's absence guards a creation only against the same key: a
// host that goes by another SubnetLen, while that is being changed, creates
// another one. Whoever comes second sees both and yields.
func (a *acquisition) doubled(leases []Lease) (older Lease, is bool) {
	i := slices.IndexFunc(leases, a.created)
	if i < 0 {
		return Lease{}, false
	}
	return overlapped(leases, leases[i])
}

// overlapped returns a lease of another host that overlaps own, and is older.
func overlapped(leases []Lease, own Lease) (older Lease, is bool) {
	for _, l := range leases {
		if l.Subnet != own.Subnet && l.Subnet.Overlaps(own.Subnet) && l.Rev < own.Rev && l.Attrs.PublicIP != own.Attrs.PublicIP {
			return l, true
		}
	}
	return Lease{}, false
}

func filter(leases []Lease, keep func(Lease) bool) []Lease {
	return slices.DeleteFunc(slices.Clone(leases), func(l Lease) bool { return !keep(l) })
}

// created reports whether l is what our last creation made.
func (a *acquisition) created(l Lease) bool {
	return a.tried.IsValid() && l.Subnet == a.tried && l.Attrs.PublicIP == a.attrs.PublicIP && !l.IPv6Subnet.IsValid()
}

// confirmed reports whether the store has the lease that we made.
func (a *acquisition) confirmed(leases []Lease) bool {
	return a.made.Subnet.IsValid() && slices.ContainsFunc(leases, func(l Lease) bool {
		return a.created(l) && l.Rev == a.made.Rev
	})
}

// yield deletes what we created.
func (a *acquisition) yield(ctx context.Context, own, older Lease) error {
	log.Infof("another host was faster, choose again: %v overlaps %v", older, own.Subnet)
	a.made = Lease{}
	if err := a.answered(a.reg.Delete(ctx, own)); err != nil {
		return fmt.Errorf("delete lease %v: %w", own.Subnet, err)
	}
	return nil
}

// create takes a free subnet, so far as leases, of revision rev, tell.
func (a *acquisition) create(ctx context.Context, leases []Lease, rev Rev) error {
	taken := slices.Clone(a.refused)
	for _, l := range leases {
		taken = append(taken, l.Subnet)
	}
	choice := a.prev
	if !a.config.allows(choice) || overlapsAny(choice, taken) {
		a.lookBack(ctx, leases, rev)
		var err error
		choice, err = pick(a.config, slices.Concat(taken, a.others), newRand())
		if errors.Is(err, ErrFull) {
			choice, err = pick(a.config, taken, newRand())
		}
		if err != nil {
			return a.full(ctx, leases)
		}
	}
	a.tried, a.made = choice, Lease{}
	l, err := a.reg.Create(ctx, Lease{Subnet: choice, Attrs: a.attrs}, a.terms.TTL)
	if errors.Is(err, ErrExists) {
		a.refused = append(a.refused, choice)
	}
	if a.answered(err) != nil {
		return fmt.Errorf("create lease %v: %w", choice, err)
	}
	a.made = l
	return nil
}

// pastLimit bounds the time that a start spends on the past.
const pastLimit = time.Second

// lookBack finds out which subnets hosts had whose leases have ended: they may
// come back for them. A store that does not tell delays no start for long.
func (a *acquisition) lookBack(ctx context.Context, leases []Lease, rev Rev) {
	if a.asked {
		return
	}
	a.asked = true
	limited, cancel := context.WithTimeout(ctx, pastLimit)
	defer cancel()
	past, err := a.reg.Past(limited, rev, leases)
	if err != nil {
		log.Infof("choose a subnet without all of the store's history: another host may have had it before reason=%q", err)
	}
	a.others = slices.Concat(a.others, past)
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }
