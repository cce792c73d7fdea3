package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// rejoin rebuilds m for another network, by other uplinks or the present ones. Lease
// and peers stay; the store takes the lease's new attributes as soon as it answers.
// If the backend refuses the uplinks (*networkSetupError), the lease keeps its
// attributes.
func (j *joiner) rejoin(ctx context.Context, m *membership, to ...uplink.Uplink) error {
	before := m.manager.Status()
	m.lease, m.synced = before.Lease, m.synced || before.Synced
	now := j.state.get()
	if slices.ContainsFunc(to, func(up uplink.Uplink) bool { return now.sides[inet.Of(up.Addr)].uplink != up }) {
		// A connection from an address that the host has lost hangs until it times out.
		again, err := j.open(ctx, m.store.Opened)
		if err != nil {
			return err
		}
		m.close()
		m.store = again
		for _, up := range to {
			j.underlay.set(up)
		}
		j.underlay.refresh(to)
		if err := j.settle(ctx, m, 0); err != nil {
			return &networkSetupError{err}
		}
	}
	refused := j.makeBackend(m)
	if refused == nil {
		m.rememberAddr()
		m.lease.Attrs = j.attrs(m)
		if err := j.fitLease(ctx, m); err != nil {
			return err
		}
	}
	j.adopt(m)
	if refused != nil {
		return &networkSetupError{fmt.Errorf("use interface %s: %w", j.state.get().interfaces(), refused)}
	}
	return nil
}

// adopt begins another network with m's lease, and the peers of the one before.
func (j *joiner) adopt(m *membership) {
	m.manager.Adopt(m.lease, m.formerIPs...)
	if m.synced {
		m.manager.AdoptPeers(j.peers.leases())
	}
	j.publishState(m)
}

// fitLease gets the parts of the lease that it lacks, after a change of the families
// that this host carries. While the store is away, the host goes on with those that
// it has.
func (j *joiner) fitLease(ctx context.Context, m *membership) error {
	if slices.Equal(j.state.get().inside(m.config), parts(m.lease)) {
		return nil
	}
	attrs := m.lease.Attrs
	err := j.takeLease(ctx, m, lastRun{checkpoint: &checkpoint{Lease: m.lease}}, storeTimeout)
	if !errors.Is(err, subnet.ErrStoreTimeout) {
		return err
	}
	m.lease.Attrs = attrs
	log.Warningf("go on with the lease as it is subnet=%s reason=%q", m.lease.Subnets(), err)
	j.leaveMissingOut(m, err.Error())
	return j.makeBackend(m)
}

// parts returns the families of a lease's parts.
func parts(l subnet.Lease) (families []inet.Family) {
	for _, f := range inet.Families {
		if l.SubnetOf(f).IsValid() {
			families = append(families, f)
		}
	}
	return families
}

// adaptedError ends a network after a change of the configuration or of the lease,
// for which the joiner has prepared.
type adaptedError struct{ reason error }

func (e *adaptedError) Error() string { return e.reason.Error() }

func (e *adaptedError) Unwrap() error { return e.reason }

func isAdapted(err error) bool {
	_, ok := errors.AsType[*adaptedError](err)
	return ok
}

// errStillLacking: the attempt has changed nothing, and the network goes on.
var errStillLacking = errors.New("the lease still lacks a subnet")

// adapt prepares m for a changed configuration, or replaces a part of the lease that
// is lost or was never there. The network runs on meanwhile, and nothing keeps the lease;
// adapt waits for the store. It returns *adaptedError then, errStillLacking if nothing
// has changed, and any other reason as it is.
func (j *joiner) adapt(ctx context.Context, m *membership, reason error) error {
	change, changed := errors.AsType[*subnet.ConfigChangedError](reason)
	lacking := errors.Is(reason, errLacking)
	if !changed && !lacking && !errors.Is(reason, subnet.ErrPartLost) || ctx.Err() != nil {
		return reason
	}
	log.Infof("adapt to a change subnet=%s reason=%q", m.lease.Subnets(), reason)
	before := m.manager.Status()
	m.lease, m.synced = before.Lease, m.synced || before.Synced
	next := *m
	if changed {
		next.config = change.To
		for _, f := range m.config.Families() {
			if !change.To.RangeOf(f).Enabled() {
				next.formerNetworks = append(next.formerNetworks, m.config.RangeOf(f).Network)
			}
		}
	}
	if err := j.prepare(ctx, &next, secondPatience); err != nil {
		return fmt.Errorf("adapt to a change: %w", err)
	}
	if err := j.takeLease(ctx, &next, lastRun{checkpoint: &checkpoint{Lease: m.lease}}, 0); err != nil {
		return fmt.Errorf("adapt to a change: %w", err)
	}
	if lacking && next.lease.Key() == m.lease.Key() {
		m.lease, m.lacking = next.lease, next.lacking
		j.adopt(m) // of the present network, which goes on
		return errStillLacking
	}
	*m = next
	return &adaptedError{reason}
}
