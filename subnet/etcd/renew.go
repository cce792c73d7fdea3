package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Renew implements subnet.Holder: it extends l's key, or repairs it. First it looks
// at all leases that overlap l's subnets, its own included:
//
//	own key names this host ─► an older lease overlaps ─► delete, ErrLost
//	                        └► else ─► update
//	another lease has the subnet ─► ErrLost
//	none ─► create ─► verify ─► an older lease overlaps ─► delete, ErrLost
//
// If only the IPv6 part of a lease of both families is another's, nothing is
// deleted: the error is ErrPartLost.
func (h *Holder) Renew(ctx context.Context, l subnet.Lease, a subnet.Attrs, former []netip.Addr) (subnet.Lease, error) {
	leases, err := h.keyspace.Overlapping(ctx, l)
	if err != nil {
		return subnet.Lease{}, err
	}
	i := slices.IndexFunc(leases, func(stored subnet.Lease) bool { return stored.Key() == l.Key() })
	switch {
	case i >= 0 && !a.SameHost(leases[i].Attrs, former):
		return subnet.Lease{}, lostTo(leases[i], a)
	case i >= 0:
		own := leases[i]
		if err := h.yieldToOlder(ctx, own, leases); err != nil {
			return subnet.Lease{}, lostIfYielded(err)
		}
		if other, lost := olderOverlap(leases, own, inet.IPv6); lost && !own.Reserved { // promise: lost-ipv6-costs-no-ipv4
			return subnet.Lease{}, fmt.Errorf("%v is older: %w", other, subnet.ErrPartLost)
		}
		return h.keyspace.Update(ctx, own, a, h.ttl)
	}
	for _, other := range leases {
		if f := l.FirstFamily(); other.SubnetOf(f).Overlaps(l.SubnetOf(f)) {
			return subnet.Lease{}, lostTo(other, a)
		}
	}
	if len(leases) > 0 {
		return subnet.Lease{}, fmt.Errorf("IPv6 subnet is now %v: %w", leases[0], subnet.ErrPartLost)
	}
	log.Warningf("lease key has vanished, create it again subnet=%s", l.Subnets())
	l.Attrs = a
	created, err := h.keyspace.Create(ctx, l, h.ttl) // promise: deleted-key-is-created-again
	if err != nil {
		return subnet.Lease{}, err
	}
	if err := h.verify(ctx, created); err != nil { // promise: repaired-key-is-verified
		return subnet.Lease{}, lostIfYielded(err)
	}
	return created, nil
}

// Check implements subnet.Holder.
func (h *Holder) Check(ctx context.Context, l subnet.Lease) error {
	now, err := h.keyspace.Get(ctx, l)
	if err == nil && !l.StoredAs(now) {
		return fmt.Errorf("check lease %s: stored is %v, written at revision %d, not %d: %w", l.Subnets(), now, now.Rev, l.Rev, subnet.ErrConflict)
	}
	return err
}

// lostTo returns ErrLost for a host with the attributes a whose subnet other has.
func lostTo(other subnet.Lease, a subnet.Attrs) error {
	if other.Attrs.SameAddr(a) {
		return fmt.Errorf("%v has our public IP: node %s (hostname %q): %w; %s",
			other, other.Attrs.NodeID, other.Attrs.Hostname, subnet.ErrLost, addressRemedy)
	}
	return fmt.Errorf("subnet is now %v: %w", other, subnet.ErrLost)
}

// lostIfYielded turns errYielded into ErrLost.
func lostIfYielded(err error) error {
	if errors.Is(err, errYielded) {
		return fmt.Errorf("%w: %w", err, subnet.ErrLost)
	}
	return err
}

// verify checks that l, which we just created, overlaps no older lease. Create
// fails only if the same key exists: another host may have created a key of
// another length, or a dual-stack one. The later of both hosts sees both leases
// and yields.
func (h *Holder) verify(ctx context.Context, l subnet.Lease) error {
	leases, err := h.keyspace.Overlapping(ctx, l)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if !slices.ContainsFunc(leases, l.StoredAs) {
		return fmt.Errorf("verify lease %s: %w", l.Subnets(), subnet.ErrConflict)
	}
	if err := h.yieldToOlder(ctx, l, leases); err != nil {
		return err
	}
	if other, lost := olderOverlap(leases, l, inet.IPv6); lost && !l.Reserved {
		return fmt.Errorf("%v is older: %w", other, errPartTaken)
	}
	return nil
}

// errPartTaken: the IPv6 part of a lease that we just created is another host's.
var errPartTaken = fmt.Errorf("%w: %w", subnet.ErrPartLost, subnet.ErrConflict)

// yieldToOlder deletes own if its first part overlaps an older one of leases, and
// returns errYielded then. A reservation does not yield.
func (h *Holder) yieldToOlder(ctx context.Context, own subnet.Lease, leases []subnet.Lease) error {
	if older, ok := olderOverlap(leases, own, own.FirstFamily()); ok && !own.Reserved { // promise: older-overlap-wins
		if err := h.keyspace.Delete(ctx, own); err != nil {
			return fmt.Errorf("delete lease %s: %w", own.Subnets(), err)
		}
		return fmt.Errorf("%s overlaps %v, which is older: %w", own.Subnets(), older, errYielded)
	}
	return nil
}

// olderOverlap returns a lease of another host that overlaps own in a family and
// was created before it.
func olderOverlap(leases []subnet.Lease, own subnet.Lease, f inet.Family) (older subnet.Lease, ok bool) {
	for _, l := range leases {
		if l.Key() != own.Key() && l.SubnetOf(f).Overlaps(own.SubnetOf(f)) && l.Created < own.Created && !own.Attrs.SameOwner(l.Attrs) {
			return l, true
		}
	}
	return subnet.Lease{}, false
}
