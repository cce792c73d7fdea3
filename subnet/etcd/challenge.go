package etcd

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

// challengeTimeout is how long the owner of a lease has to show that it is
// alive. It needs two round trips: its watch delivers the challenge, and it
// writes its lease.
const challengeTimeout = 5 * time.Second

// addressRemedy is what an operator can do about two hosts with one public IP.
const addressRemedy = "give this host another address, or name one with -public-ip"

// ours returns the leases that are ours, those with our public IP first: of one
// with our NodeID and another address, a copy of our disk may be the holder.
// A reservation is for the address that the operator wrote, unless the host with our
// NodeID took it.
func (a *acquisition) ours(leases []subnet.Lease) (ours []subnet.Lease) {
	first := 0
	for _, l := range leases {
		switch {
		case !l.Attrs.SameOwner(a.attrs) || a.attrs.NodeID == "" && l.Attrs.NodeID != "":
		case l.Attrs.SameAddr(a.attrs) && l.Attrs.NodeID == a.attrs.NodeID:
			ours = slices.Insert(ours, first, l)
			first++
		default:
			ours = append(ours, l)
		}
	}
	slices.SortStableFunc(ours[first:], func(l, m subnet.Lease) int {
		return cmp.Compare(m.Attrs.NodeID, l.Attrs.NodeID) // ours before none
	})
	return ours
}

// ofOurAddress returns the leases of other nodes with our public IP: their hosts
// had it before us, or have it too.
func (a *acquisition) ofOurAddress(leases []subnet.Lease) (others []subnet.Lease) {
	for _, l := range leases {
		if l.Attrs.SameAddr(a.attrs) && l.Attrs.NodeID != "" && l.Attrs.NodeID != a.attrs.NodeID {
			others = append(others, l)
		}
	}
	return others
}

// needsChallenge reports whether the holder of l may be alive: address or NodeID is
// another's, and it was not found silent before.
func (a *acquisition) needsChallenge(l subnet.Lease) bool {
	if l.Attrs.NodeID == "" || l.Attrs.NodeID == a.attrs.NodeID && l.Attrs.SameAddr(a.attrs) {
		return false
	}
	silent, ok := a.silent[l.Key()]
	return !ok || !silent.StoredAs(l)
}

// settle returns l if it is ours without doubt, or as a challenge leaves it.
func (a *acquisition) settle(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	if a.needsChallenge(l) { // promise: one-host-an-address
		return a.challenge(ctx, l)
	}
	return l, nil
}

// challengeAll returns leases as the challenges leave them. It fails if one's
// holder is alive.
func (a *acquisition) challengeAll(ctx context.Context, leases []subnet.Lease) (silent []subnet.Lease, err error) {
	for _, l := range leases {
		if l, err = a.settle(ctx, l); err != nil {
			return nil, err
		}
		silent = append(silent, l)
	}
	return silent, nil
}

// challenge finds out whether the host that holds l is alive. It writes the
// Challenge field and nothing else, so that the owner's peers are not affected.
// A living owner sees the change and writes its own attributes again
// (Manager.Renew); challenge then fails with ErrAddressInUse or ErrCloned. If the
// owner is dead, the lease keeps the challenge and is returned.
func (a *acquisition) challenge(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	log.Infof("challenge the host that holds a lease of ours subnet=%s public_ip=%v node_id=%s hostname=%q wait=%v",
		l.Subnets(), l.Attrs.HostAddr(), l.Attrs.NodeID, l.Attrs.Hostname, challengeTimeout)
	if l.Attrs.Challenge != "" { // another host's, which may take the lease next, or has died
		switch now, err := a.awaitWrite(ctx, l); {
		case err != nil:
			return subnet.Lease{}, err
		case !now.StoredAs(l):
			return subnet.Lease{}, fmt.Errorf("challenge holder of %s: %w", l.Subnets(), subnet.ErrConflict)
		}
	}
	challenged := l.Attrs
	challenged.Challenge = a.attrs.NodeID + "@" + a.attrs.HostAddr().String()
	if challenged.Challenge == l.Attrs.Challenge {
		challenged.Challenge += "+" // distinguishes it from that of an earlier run
	}
	written, err := a.keyspace.Update(ctx, l, challenged, a.ttl)
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("challenge holder of %s: %w", l.Subnets(), err)
	}
	now, err := a.awaitWrite(ctx, written)
	switch {
	case err != nil:
		return subnet.Lease{}, err
	case now.StoredAs(written):
		a.silent[now.Key()] = now
		return now, nil
	case now.Attrs.Challenge != "" || now.Rev == 0:
		return subnet.Lease{}, fmt.Errorf("challenge holder of %s: %w", l.Subnets(), subnet.ErrConflict)
	}
	owner := fmt.Sprintf("node %s (hostname %q) holds %s with public IP %v", now.Attrs.NodeID, now.Attrs.Hostname, now.Subnets(), now.Attrs.HostAddr())
	if now.Attrs.SameAddr(a.attrs) {
		return subnet.Lease{}, fmt.Errorf("%w: %s; %s", subnet.ErrAddressInUse, owner, addressRemedy)
	}
	return subnet.Lease{}, fmt.Errorf("%w: %s", subnet.ErrCloned, owner)
}

// awaitWrite returns l as it is after the next write to it or after
// challengeTimeout; its Rev is 0 if it is gone.
func (a *acquisition) awaitWrite(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	waiting, done := context.WithTimeout(ctx, challengeTimeout)
	defer done()
	err := a.keyspace.Watch(waiting, subnet.Position{Rev: l.Rev}, func(_ subnet.Rev, events []subnet.Event) {
		if slices.ContainsFunc(events, func(e subnet.Event) bool { return e.Lease.Key() == l.Key() }) {
			done()
		}
	})
	if waiting.Err() == nil {
		log.V(1).Infof("watch challenged lease: %v", err)
		<-waiting.Done() // a broken watch does not shorten the owner's time
	} else if ctx.Err() == nil {
		// The owner was silent, not the store.
		a.record(nil) // promise: silent-owner-is-no-silent-store
	}
	leases, _, err := a.keyspace.List(ctx)
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("list leases: %w", err)
	}
	i := slices.IndexFunc(leases, func(now subnet.Lease) bool { return now.Key() == l.Key() })
	if i < 0 {
		return subnet.Lease{}, nil
	}
	return leases[i], nil
}
