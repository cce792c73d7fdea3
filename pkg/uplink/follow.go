package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
)

// settleTime is how long a change must last to count. An address is often
// replaced in two steps, and another interface looks better in between.
const settleTime = 200 * time.Millisecond

// Follow waits until the uplink differs from u in interface, address or MTU, and
// returns the new one. It keeps u's interface and address while they work, even
// if the choice is another today: a VPN that takes the default route does not
// move a host.
//
// While there is no usable uplink, Follow waits on. It reports the problem when
// one begins or changes, and nil when it ends. When ctx ends, Follow returns
// ctx's error.
func Follow(ctx context.Context, c Choice, u Uplink, report func(problem error)) (Uplink, error) {
	f := follower{choice: c, current: u, report: report, changed: reconcile.NewSignal()}
	f.settle = time.AfterFunc(settleTime, f.changed.Set)
	f.settle.Stop() // until there is a next
	defer f.settle.Stop()
	if err := watch(ctx, c.Family, f.changed, f.look); err != nil {
		return Uplink{}, err
	}
	if !f.settled {
		return Uplink{}, ctx.Err()
	}
	return f.next, nil
}

// follower is the state of Follow.
type follower struct {
	choice  Choice
	current Uplink
	report  func(error)
	changed reconcile.Signal

	problem string
	// next would replace current if it lasts; zero if there is none.
	next    Uplink
	since   time.Time
	settle  *time.Timer // sets changed when next has lasted
	settled bool
}

func (f *follower) look(context.Context) error {
	now, err := Successor(f.choice, f.current)
	problem := ""
	if err != nil {
		now, problem = f.current, err.Error() // none replaces it yet
	}
	if problem != f.problem {
		ratelog.Warningf("uplink iface=%s problem=%q", f.current.Name, problem)
		f.problem = problem
		f.report(err)
	}
	switch {
	case now == f.current:
		f.next = Uplink{}
	case now != f.next:
		f.next, f.since = now, time.Now()
		f.settle.Reset(settleTime)
	case time.Since(f.since) >= settleTime: // promise: uplink-change-is-reported
		f.settled = true
		return reconcile.Stop(nil)
	}
	return nil
}

// Successor returns the uplink that replaces u at this moment, u itself if nothing has
// changed. The error is why there is none.
func Successor(c Choice, u Uplink) (Uplink, error) {
	h, err := readHost(c.Family)
	if err != nil {
		return Uplink{}, err
	}
	return h.successor(c, u, kernel{c.Family})
}

// successor returns the uplink that replaces u. It is u, with its reason, if
// nothing has changed.
func (h host) successor(c Choice, u Uplink, r routes) (Uplink, error) {
	i := slices.IndexFunc(h.links, func(l link) bool { return slices.Contains(l.names, u.Name) })
	there := i >= 0 && h.links[i].up && h.links[i].has(u.Addr) && h.obstacle(h.links[i]) == nil
	if there && h.links[i].unfit(u.Addr) == "" {
		return h.links[i].with(u.Addr, u.Reason), nil
	}
	next, err := c.pick(h, r)
	switch {
	case err == nil:
		return next, nil
	case there && h.links[i].unfit(u.Addr) == deprecated: // it works until another takes its place
		return h.links[i].with(u.Addr, u.Reason), nil
	case i < 0:
		return next, fmt.Errorf("interface %s is gone; %w", u.Name, err)
	case !h.links[i].up:
		return next, fmt.Errorf("interface %s is down; %w", u.Name, err)
	case c.byAddr():
		return next, err
	}
	// The route that u was chosen by often goes with u's old address.
	next, e := h.choose(h.links[i], netip.Addr{}, u.Reason)
	if e != nil {
		return next, fmt.Errorf("%w; %w", e, err)
	}
	return next, nil
}

// byAddr reports whether -iface names an address.
func (c Choice) byAddr() bool {
	return slices.ContainsFunc(c.Ifaces, func(s string) bool {
		_, err := netip.ParseAddr(s)
		return err == nil
	})
}
