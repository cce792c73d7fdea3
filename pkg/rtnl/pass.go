package rtnl

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/ratelog"
)

// pass compares all that is desired with all that the kernel has, and repairs
// the difference.
func (r *Reconciler) pass() error {
	r.passing.Lock()
	defer r.passing.Unlock()
	if r.config.Passed != nil {
		defer func(began time.Time) { r.config.Passed(time.Since(began)) }(time.Now())
	}
	if r.config.Prepare != nil {
		if err := r.config.Prepare(); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, have, err := r.look()
	if err != nil {
		return err
	}
	r.known = s.links
	d := r.compare(s, have)
	if n := len(d.remove) + len(d.add); n > 0 {
		log.Infof("change kernel state network=%v add=%d remove=%d of=%d routes, %d neighbours, %d forwarding entries",
			r.config.Network, len(d.add), len(d.remove), len(r.want.routes), len(r.want.neighs), len(r.want.fdb))
	}
	if err := r.execute(d); err != nil {
		return err
	}
	r.setRefused(d.refused)
	return summary(d.failed)
}

// compare returns the difference between the kernel's tables and what is desired.
func (r *Reconciler) compare(s scope, have inventory) *difference {
	d := new(difference)
	compareNeighs(d, s, r.want.fdb, have.fdb, func(n kernelNeigh) MAC { return n.mac })
	compareNeighs(d, s, r.want.neighs, have.neighs, func(n kernelNeigh) netip.Addr { return n.ip })
	d.routes(s, r.want.routes, have.routes)
	return d
}

// replace changes what is desired. It returns the difference that this makes if
// the kernel has what was desired before. If the kernel has not, an operation
// fails.
func (r *Reconciler) replace(before, after []State) *difference {
	d, s := new(difference), scope{r.config, r.known}
	replaceNeighs(d, s, r.want.fdb.replace(before, after, fdbOf, FDB.key))
	replaceNeighs(d, s, r.want.neighs.replace(before, after, neighsOf, Neigh.key))
	for _, c := range r.want.routes.replace(before, after, routesOf, Route.key) {
		r.replaceRoute(d, s, c)
	}
	return d
}

func replaceNeighs[K comparable, V neighEntry](d *difference, s scope, changes map[K]change[V]) {
	for _, c := range changes {
		if c.after != nil {
			d.putNeigh(s, (*c.after).ours(s.device()))
		} else {
			d.removeNeigh((*c.before).ours(s.device()))
		}
	}
}

func (r *Reconciler) replaceRoute(d *difference, s scope, c change[Route]) {
	var refused *Refusal
	if c.before != nil {
		refused = r.refused[c.before.key()]
	}
	switch {
	case c.after != nil && refused != nil: // what is in the way is not ours to replace
		d.refused = append(d.refused, refused)
	case c.after != nil && c.before != nil:
		d.replaceRoute(s, *c.after, ourRoute(*c.before, s.links[c.before.Dev]))
	case c.after != nil:
		d.addRoute(s, *c.after)
	case refused != nil:
		delete(r.refused, c.before.key())
	default:
		d.removeRoute(ourRoute(*c.before, s.links[c.before.Dev]))
	}
}

// execute makes the changes of d, and collects in d the failures of single ones.
func (r *Reconciler) execute(d *difference) error {
	if err := r.conn.do(r.ctx, d.remove); err != nil {
		return err
	}
	if err := r.conn.do(r.ctx, d.add); err != nil {
		return err
	}
	return r.conn.do(r.ctx, d.withdraw)
}

// maxReasons bounds how many failures an error lists.
const maxReasons = 3

func summary(failed []error) error {
	if len(failed) <= maxReasons {
		return errors.Join(failed...)
	}
	return fmt.Errorf("%w; and %d more", errors.Join(failed[:maxReasons]...), len(failed)-maxReasons)
}

// setRefused replaces the refusals, and logs those that are new and those that
// have ended.
func (r *Reconciler) setRefused(refused []*Refusal) {
	now := make(map[routeKey]*Refusal, len(refused))
	r.obstructed = false
	for _, f := range refused {
		now[f.Route.key()] = f
		r.obstructed = r.obstructed || errors.Is(f, ErrForeign)
		if old := r.refused[f.Route.key()]; old == nil || old.Error() != f.Error() {
			ratelog.Errorf("refuse route dst=%v via=%v dev=%s reason=%q", f.Route.Dst, f.Route.Via, f.Route.Dev, f.Err)
		}
	}
	for key := range r.refused {
		if now[key] == nil {
			log.Infof("route is no longer refused dst=%v", key.dst)
		}
	}
	r.refused = now
}
