package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

// Renew implements subnet.Holder: it extends l's key, or repairs it.
func (h *Holder) Renew(ctx context.Context, l subnet.Lease, former []netip.Addr) (subnet.Lease, error) {
	renewed, err := h.keyspace.Update(ctx, l, h.ttl)
	if errors.Is(err, subnet.ErrConflict) {
		return h.repair(ctx, l, former)
	}
	return renewed, err
}

// repair handles a key that is no longer our last write. If it still names this
// host, we continue from it: the answer to our write was lost, or an operator
// edited it. If no lease overlaps the subnet, we create the key again. If
// another host has the subnet, the lease is lost.
func (h *Holder) repair(ctx context.Context, l subnet.Lease, former []netip.Addr) (subnet.Lease, error) {
	leases, _, err := h.keyspace.List(ctx)
	if err != nil {
		return subnet.Lease{}, fmt.Errorf("list leases: %w", err)
	}
	for _, own := range leases {
		if own.Subnet == l.Subnet && l.Attrs.SameHost(own.Attrs, former) {
			if own.Attrs.PublicIP == l.Attrs.PublicIP && identityConflict(own, l.Attrs) {
				return subnet.Lease{}, fmt.Errorf("%v has our public IP: node %s (hostname %q): %w",
					own, own.Attrs.NodeID, own.Attrs.Hostname, subnet.ErrLost)
			}
			own.Attrs = l.Attrs
			return h.keyspace.Update(ctx, own, h.ttl)
		}
	}
	for _, other := range leases {
		if other.Subnet.Overlaps(l.Subnet) {
			return subnet.Lease{}, fmt.Errorf("subnet is now %v: %w", other, subnet.ErrLost)
		}
	}
	log.Warningf("lease key has vanished, create it again subnet=%v", l.Subnet)
	return h.keyspace.Create(ctx, l, h.ttl) // promise: deleted-key-is-created-again
}
