package main

import (
	"context"
	"errors"
	"fmt"

	log "github.com/golang/glog"

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

// follow carries packets by the uplink as it is at each time.
func (d *daemon) follow(ctx context.Context, j *joined, rec *recorder) error {
	for {
		err := d.carry(ctx, *j, rec)
		moved := (*movedError)(nil)
		if ctx.Err() != nil || !errors.As(err, &moved) {
			return err
		}
		log.Infof("make the network anew subnet=%v reason=%q", j.lease.Subnet, moved)
		if err := d.move(ctx, j, moved.to, rec); err != nil {
			return err
		}
	}
}

// move makes j what it would be after a restart with the store away: same
// lease, same peers, and what the lease tells is written as soon as the store
// takes it.
func (d *daemon) move(ctx context.Context, j *joined, to uplink.Uplink, rec *recorder) error {
	before := j.manager.Status()
	own, peers := before.Lease, []subnet.Lease(nil)
	if before.Synced {
		peers = append([]subnet.Lease{}, rec.leases()...) // none is known to be none
	}
	// A connection from an address that is gone hangs until it times out.
	again, err := store.Open(ctx, store.Config{StoreConfig: d.options.store.StoreConfig, API: j.store.API})
	if err != nil {
		return err
	}
	j.close()
	j.store = again
	d.update(func(r *running) { r.store = again })
	if err := d.prepare(j, to, d.chosen(to)); err != nil {
		return fmt.Errorf("use interface %s: %w", to.Name, err)
	}
	own.Attrs = d.identify(j.backend.Attrs())
	j.lease = own
	j.manager.Adopt(own, peers)
	rec.follow(j.manager)
	return nil
}
