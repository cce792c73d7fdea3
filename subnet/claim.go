package subnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	log "github.com/golang/glog"
)

// claimWait is how long the owner of a lease has to say that it is alive. It
// needs two round trips: its watch tells it of the claim, and it writes.
const claimWait = 5 * time.Second

// Errors of Acquire: a living host has what this one takes for its own.
var (
	// ErrAddressInUse: a host with another NodeID holds a lease with our PublicIP.
	ErrAddressInUse = errors.New("another living host has this public IP")
	// ErrCloned: a host with another PublicIP holds a lease with our NodeID, as
	// after a copy of its disk. It needs a new NodeID.
	ErrCloned = errors.New("another living host has this node id")
)

// claims reports whether l may be ours by its address or by its NodeID. A
// reservation goes by the address alone, which the operator wrote.
func (a *acquisition) claims(l Lease) bool {
	if l.IPv6Subnet.IsValid() {
		return false
	}
	return l.Attrs.PublicIP == a.attrs.PublicIP || !l.Reserved && a.attrs.NodeID != "" && l.Attrs.NodeID == a.attrs.NodeID
}

// strange reports whether address and NodeID of l contradict each other about
// whose it is. A lease without a NodeID goes by the address alone.
func strange(l Lease, own Attrs) bool {
	known := l.Attrs.NodeID != "" && own.NodeID != ""
	return known && (l.Attrs.NodeID == own.NodeID) != (l.Attrs.PublicIP == own.PublicIP)
}

// claim finds out whether the host that holds l is alive. It writes a question
// into the lease and nothing else, so that the owner's peers go on as before. An
// owner that is alive sees its lease changed, and writes what it has to say
// over it (Renew); claim fails with ErrAddressInUse or ErrCloned then. Of one that
// is not the lease stays as claim wrote it, and is returned for us to take.
func (a *acquisition) claim(ctx context.Context, l Lease) (Lease, error) {
	log.Infof("ask whether the host that holds a lease of ours is alive subnet=%v public_ip=%v node_id=%s hostname=%q wait=%v",
		l.Subnet, l.Attrs.PublicIP, l.Attrs.NodeID, l.Attrs.Hostname, claimWait)
	if l.Attrs.Claim != "" { // another newcomer's, who may be about to take the lease; or it died over it
		switch now, err := a.await(ctx, l); {
		case err != nil:
			return Lease{}, err
		case now.Rev != l.Rev:
			return Lease{}, fmt.Errorf("claim lease %v: %w", l.Subnet, ErrLost)
		}
	}
	question := l
	question.Attrs.Claim = a.attrs.NodeID + "@" + a.attrs.PublicIP.String()
	if question.Attrs.Claim == l.Attrs.Claim {
		question.Attrs.Claim += "+" // ours, of a run that did not end: this is another question
	}
	asked, err := a.reg.Update(ctx, question, a.terms.TTL)
	if a.answered(err) != nil {
		return Lease{}, fmt.Errorf("claim lease %v: %w", l.Subnet, err)
	}
	now, err := a.await(ctx, asked)
	switch {
	case err != nil:
		return Lease{}, err
	case now.Rev == asked.Rev:
		return now, nil
	case now.Attrs.Claim != "" || now.Rev == 0:
		return Lease{}, fmt.Errorf("claim lease %v: %w", l.Subnet, ErrLost)
	}
	who := fmt.Sprintf("node %s (hostname %q) holds %v with public IP %v", now.Attrs.NodeID, now.Attrs.Hostname, now.Subnet, now.Attrs.PublicIP)
	if now.Attrs.PublicIP == a.attrs.PublicIP {
		return Lease{}, fmt.Errorf("%w: %s; give this host another address, or name one with -public-ip", ErrAddressInUse, who)
	}
	return Lease{}, fmt.Errorf("%w: %s", ErrCloned, who)
}

// await returns l as it is after the next write to it, or after claimWait; with
// a Rev of 0 if it is gone.
func (a *acquisition) await(ctx context.Context, l Lease) (Lease, error) {
	waiting, enough := context.WithTimeout(ctx, claimWait)
	defer enough()
	err := a.reg.Watch(waiting, l.Rev, func(_ Rev, events []Event) {
		if slices.ContainsFunc(events, func(e Event) bool { return e.Lease.Key() == l.Key() }) {
			enough()
		}
	})
	if waiting.Err() == nil {
		log.V(1).Infof("watch claimed lease: %v", err)
		<-waiting.Done() // the owner has all of this time, whatever we see
	} else if ctx.Err() == nil {
		a.answered(nil) // that nothing came is the owner's silence, not the store's
	}
	leases, _, err := a.reg.List(ctx)
	if a.answered(err) != nil {
		return Lease{}, fmt.Errorf("list leases: %w", err)
	}
	i := slices.IndexFunc(leases, func(now Lease) bool { return now.Key() == l.Key() })
	if i < 0 {
		return Lease{}, nil
	}
	return leases[i], nil
}
