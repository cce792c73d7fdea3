package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

// Renew implements subnet.Holder: it extends l's key, or repairs it. First it looks
// at all leases that overlap l's subnet, its own included:
//
//	own key names this host ─► an older lease overlaps ─► delete, ErrLost
//	                        └► else ─► update
//	another lease has the subnet ─► ErrLost
//	none ─► create ─► verify ─► an older lease overlaps ─► delete, ErrLost
func (h *Holder) Renew(ctx context.Context, l subnet.Lease, a subnet.Attrs, former []netip.Addr) (subnet.Lease, error) {
	leases, err := h.keyspace.Overlapping(ctx, l.Subnet)
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
		return h.keyspace.Update(ctx, own, a, h.ttl)
	case len(leases) > 0:
		return subnet.Lease{}, lostTo(leases[0], a)
	}
	log.Warningf("lease key has vanished, create it again subnet=%v", l.Subnet)
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
		return fmt.Errorf("check lease %v: stored is %v, written at revision %d, not %d: %w", l.Subnet, now, now.Rev, l.Rev, subnet.ErrConflict)
	}
	return err
}

// lostTo returns ErrLost for a host with the attributes a whose subnet other has.
func lostTo(other subnet.Lease, a subnet.Attrs) error {
	if other.Attrs.PublicIP == a.PublicIP {
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
	leases, err := h.keyspace.Overlapping(ctx, l.Subnet)
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	if !slices.ContainsFunc(leases, l.StoredAs) {
		return fmt.Errorf("verify lease %v: %w", l.Subnet, subnet.ErrConflict)
	}
	return h.yieldToOlder(ctx, l, leases)
}

// yieldToOlder deletes own if it overlaps an older one of leases, and returns
// errYielded then. A reservation does not yield.
func (h *Holder) yieldToOlder(ctx context.Context, own subnet.Lease, leases []subnet.Lease) error {
	if older, ok := olderOverlap(leases, own); ok && !own.Reserved { // promise: older-overlap-wins
		if err := h.keyspace.Delete(ctx, own); err != nil {
			return fmt.Errorf("delete lease %v: %w", own.Subnet, err)
		}
		return fmt.Errorf("%v overlaps %v, which is older: %w", own.Subnet, older, errYielded)
	}
	return nil
}

// olderOverlap returns a lease of another host that overlaps own and was created
// before it.
func olderOverlap(leases []subnet.Lease, own subnet.Lease) (older subnet.Lease, ok bool) {
	for _, l := range leases {
		if l.Key() != own.Key() && l.Subnet.Overlaps(own.Subnet) && l.Created < own.Created && !own.Attrs.SameOwner(l.Attrs) {
			return l, true
		}
	}
	return subnet.Lease{}, false
}
