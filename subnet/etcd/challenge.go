package etcd

import (
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

// mayBeOurs reports whether l may be ours by its address or by its NodeID. A
// reservation counts by the address alone, which the operator wrote.
func (a *acquisition) mayBeOurs(l subnet.Lease) bool {
	if l.IPv6Subnet.IsValid() {
		return false
	}
	return l.Attrs.PublicIP == a.attrs.PublicIP || !l.Reserved && a.attrs.NodeID != "" && l.Attrs.NodeID == a.attrs.NodeID // promise: node-id-proves-ownership
}

// identityConflict reports whether address and NodeID of l disagree about
// whether the lease is ours. A lease without a NodeID counts by its address.
func identityConflict(l subnet.Lease, own subnet.Attrs) bool {
	known := l.Attrs.NodeID != "" && own.NodeID != ""
	return known && (l.Attrs.NodeID == own.NodeID) != (l.Attrs.PublicIP == own.PublicIP)
}

// challenge finds out whether the host that holds l is alive. It writes the
// Challenge field and nothing else, so that the owner's peers are not affected.
// A living owner sees the change and writes its own attributes again
// (Manager.Renew); challenge then fails with ErrAddressInUse or ErrCloned. If the
// owner is dead, the lease keeps the challenge and is returned.
func (a *acquisition) challenge(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	log.Infof("challenge the host that holds a lease of ours subnet=%v public_ip=%v node_id=%s hostname=%q wait=%v",
		l.Subnet, l.Attrs.PublicIP, l.Attrs.NodeID, l.Attrs.Hostname, challengeTimeout)
	if l.Attrs.Challenge != "" { // another host's, which may take the lease next, or has died
		switch now, err := a.awaitWrite(ctx, l); {
		case err != nil:
			return subnet.Lease{}, err
		case now.Rev != l.Rev:
			return subnet.Lease{}, fmt.Errorf("challenge holder of %v: %w", l.Subnet, subnet.ErrConflict)
		}
	}
	challenged := l
	challenged.Attrs.Challenge = a.attrs.NodeID + "@" + a.attrs.PublicIP.String()
	if challenged.Attrs.Challenge == l.Attrs.Challenge {
		challenged.Attrs.Challenge += "+" // distinguishes it from that of an earlier run
	}
	written, err := a.keyspace.Update(ctx, challenged, a.ttl)
	if a.record(err) != nil {
		return subnet.Lease{}, fmt.Errorf("challenge holder of %v: %w", l.Subnet, err)
	}
	now, err := a.awaitWrite(ctx, written)
	switch {
	case err != nil:
		return subnet.Lease{}, err
	case now.Rev == written.Rev:
		return now, nil
	case now.Attrs.Challenge != "" || now.Rev == 0:
		return subnet.Lease{}, fmt.Errorf("challenge holder of %v: %w", l.Subnet, subnet.ErrConflict)
	}
	owner := fmt.Sprintf("node %s (hostname %q) holds %v with public IP %v", now.Attrs.NodeID, now.Attrs.Hostname, now.Subnet, now.Attrs.PublicIP)
	if now.Attrs.PublicIP == a.attrs.PublicIP {
		return subnet.Lease{}, fmt.Errorf("%w: %s; give this host another address, or name one with -public-ip", subnet.ErrAddressInUse, owner)
	}
	return subnet.Lease{}, fmt.Errorf("%w: %s", subnet.ErrCloned, owner)
}

// awaitWrite returns l as it is after the next write to it or after
// challengeTimeout; its Rev is 0 if it is gone.
func (a *acquisition) awaitWrite(ctx context.Context, l subnet.Lease) (subnet.Lease, error) {
	waiting, done := context.WithTimeout(ctx, challengeTimeout)
	defer done()
	err := a.keyspace.Watch(waiting, l.Rev, func(_ subnet.Rev, events []subnet.Event) {
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
