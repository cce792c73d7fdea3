package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// movedError ends a network because the uplink is not what it was made for.
type movedError struct{ to uplink.Uplink }

func (e *movedError) Error() string {
	return fmt.Sprintf("the uplink is now %s with address %v and MTU %d", e.to.Name, e.to.Addr, e.to.MTU)
}

// watchUplink returns a *movedError when the uplink is another one, or has
// another address or MTU, and nil when ctx ends.
func (d *daemon) watchUplink(ctx context.Context) error {
	next, err := uplink.Follow(ctx, d.options.iface, d.snapshot().uplink, func(problem error) {
		d.update(func(r *running) {
			r.uplinkProblem = ""
			if problem != nil {
				r.uplinkProblem = problem.Error()
			}
		})
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	return &movedError{next}
}

// follow carries packets by the uplink as it is at each time. Once they have been
// carried, a network that cannot be made for another uplink is no reason to end:
// the next change may make it possible, and the lease must be kept until then.
func (d *daemon) follow(ctx context.Context, j *joined, rec *recorder) error {
	pauses := backoff.New()
	var next *uplink.Uplink // to be moved to
	for moved := false; ; {
		err := error(nil)
		if next != nil {
			err = d.move(ctx, j, *next, rec)
		}
		if err == nil {
			next = nil
			err = d.carry(ctx, *j, rec)
		}
		unmade := (*unmadeError)(nil)
		if moved && ctx.Err() == nil && errors.As(err, &unmade) {
			err = d.hold(ctx, j, pauses.NextBackOff(), unmade)
		}
		change := (*movedError)(nil)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, backend.ErrGone):
			log.Warningf("make the network anew subnet=%v reason=%q", j.lease.Subnet, err)
			same := d.snapshot().uplink
			next, moved = &same, true
		case errors.As(err, &change):
			log.Infof("make the network anew subnet=%v reason=%q", j.lease.Subnet, change)
			next, moved = &change.to, true
			pauses.Reset()
		case err != nil:
			return err
		}
	}
}

// unmadeError says why there is no network for the uplink as it is.
type unmadeError struct{ error }

func (e *unmadeError) Unwrap() error { return e.error }

// hold keeps the lease for a while in which there is no network (nil), or until
// the uplink changes (*movedError).
func (d *daemon) hold(ctx context.Context, j *joined, pause time.Duration, reason *unmadeError) error {
	log.Warningf("make the network anew: failed, keep the lease and try again subnet=%v in=%v reason=%q",
		j.lease.Subnet, pause.Round(time.Millisecond), reason)
	d.update(func(r *running) { r.uplinkProblem = reason.Error() })
	limited, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	g, limited := errgroup.WithContext(limited)
	g.Go(func() error { return j.manager.Renew(limited, j.lease) })
	g.Go(func() error { return d.watchUplink(limited) })
	err := g.Wait()
	j.lease = j.manager.Status().Lease
	return d.withdraw(ctx, *j, err)
}

// move makes j what it would be after a restart with the store away: same
// lease, same peers, and what the lease tells is written as soon as the store
// takes it. Where the backend does not go by that uplink (*unmadeError), the
// lease tells what it told before.
func (d *daemon) move(ctx context.Context, j *joined, to uplink.Uplink, rec *recorder) error {
	before := j.manager.Status()
	own, peers := before.Lease, []*subnet.Lease(nil)
	if before.Synced {
		peers = append([]*subnet.Lease{}, rec.leases()...) // none is known to be none
	}
	// A connection from an address that is gone hangs until it times out.
	again, err := store.Open(ctx, store.Config{ClientConfig: d.options.store.ClientConfig, API: j.store.API})
	if err != nil {
		return err
	}
	j.close()
	j.store = again
	d.update(func(r *running) { r.store = again })
	unmade := d.prepare(j, to, d.chosen(to))
	if unmade == nil {
		if was := own.Attrs.PublicIP; !slices.Contains(j.former, was) {
			j.former = append(j.former, was)
		}
		own.Attrs = d.identify(j.backend.Attrs())
	}
	j.lease = own
	j.manager.Adopt(own, peers, j.former...)
	rec.follow(j.manager)
	if unmade != nil {
		return &unmadeError{fmt.Errorf("use interface %s: %w", to.Name, unmade)}
	}
	return nil
}
