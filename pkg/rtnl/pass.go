package rtnl

import (
	"errors"
	"fmt"
	"slices"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/ratelog"
)

// pass compares all that is desired with all that the kernel has, and repairs
// the difference. It does nothing before Reset.
func (r *Reconciler) pass() error {
	r.passing.Lock()
	defer r.passing.Unlock()
	r.mu.Lock()
	known := r.owners != nil
	r.mu.Unlock()
	if !known {
		return nil
	}
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
	s, d, err := r.compare()
	if err != nil {
		return err
	}
	r.known = s.links
	if len(d.remove)+len(d.add) > 0 {
		log.Infof("change kernel state network=%v add=%d remove=%d of=%d routes, %d neighbours and forwarding entries",
			r.config.Network, len(d.add), len(d.remove), len(r.want.routes), len(r.want.neighs))
	}
	if err := r.execute(d); err != nil {
		return err
	}
	r.setRefused(d.refused)
	r.foreign = make(map[routeKey]bool, len(d.foreign))
	for key := range d.foreign {
		r.foreign[key] = true
	}
	return summary(d.failed)
}

// compare returns the difference between the kernel's tables and what is desired.
// What it reads is not kept for the next pass: that is minutes away, and ten
// thousand peers take 3 MB. The caller holds mu.
func (r *Reconciler) compare() (s scope, d *difference, err error) {
	s.config = r.config
	if err := AwaitAnnounced(r.Links); err != nil {
		return s, nil, err
	}
	if s.links, err = indexes(r.Links, r.config); err != nil {
		return s, nil, err
	}
	routes, err := r.conn.routes(s)
	if err != nil {
		return s, nil, err
	}
	var neighs []kernelNeigh
	if device := s.device(); device != 0 {
		if neighs, err = r.conn.neighs(nil, "neighbours", addrFamily(r.config.Network.Addr()), device); err != nil {
			return s, nil, err
		}
		if neighs, err = r.conn.neighs(neighs, "forwarding entries", unix.AF_BRIDGE, device); err != nil {
			return s, nil, err
		}
	}
	d = new(difference)
	d.neighs(s, r.want.neighs, neighs)
	d.routes(s, r.want.routes, routes)
	nameForeign(r.Links, d.refused)
	return s, d, nil
}

// indexes returns the indexes of device and uplink by name if they exist. Another
// program's device with the name of ours is none.
func indexes(h *netlink.Handle, c Config) (map[string]int, error) {
	found := make(map[string]int, 2)
	for _, name := range []string{c.Device, c.Uplink} {
		if name == "" {
			continue
		}
		link, err := FindLink(h, name)
		if err != nil {
			return nil, err
		}
		if link == nil {
			continue
		}
		if name == c.Device && len(c.DeviceTypes) > 0 && !slices.Contains(c.DeviceTypes, link.Type()) {
			continue
		}
		found[name] = link.Attrs().Index
	}
	return found, nil
}

// replace changes what is desired. It returns the difference that this makes if
// the kernel has what was desired before. If the kernel has not, an operation
// fails.
func (r *Reconciler) replace(before, after []State) *difference {
	d, s := new(difference), scope{r.config, r.known}
	for _, c := range r.want.neighs.replace(before, after, func(s State) []Neigh { return s.Neighs }) {
		if c.after != nil {
			d.putNeigh(s, *c.after)
		} else {
			d.removeNeigh(ourNeigh(*c.before, s.device()))
		}
	}
	for _, c := range r.want.routes.replace(before, after, func(s State) []Route { return s.Routes }) {
		r.replaceRoute(d, s, c)
	}
	return d
}

func (r *Reconciler) replaceRoute(d *difference, s scope, c change[Route]) {
	if c.before == nil {
		d.putRoute(s, *c.after, nil)
		return
	}
	refused, old := r.refused[c.before.key()], ourRoute(*c.before, s.links[c.before.Dev])
	switch {
	case c.after != nil && r.besideForeign(c): // a replacement could take theirs
		d.fail("replace route %v: %w", c.after, ErrForeign)
	case c.after != nil && refused != nil: // what is in the way is not ours to replace
		d.refused = append(d.refused, refused)
	case c.after != nil:
		d.putRoute(s, *c.after, &old)
	case refused != nil:
		delete(r.refused, c.before.key())
	default:
		d.removeRoute(old)
	}
}

// besideForeign reports whether another program had a route where one of ours changes.
func (r *Reconciler) besideForeign(c change[Route]) bool {
	return r.foreign[c.before.key()]
}

// execute makes the changes of d, and collects in d the failures of single ones.
func (r *Reconciler) execute(d *difference) error {
	if err := r.conn.do(d.remove); err != nil {
		return err
	}
	if err := r.conn.do(d.add); err != nil {
		return err
	}
	return r.conn.do(d.withdraw)
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
	for _, f := range refused {
		now[f.Route.key()] = f
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
