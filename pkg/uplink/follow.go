package uplink

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/ratelog"
)

// settleTime is how long a change must last to count: an address is often
// replaced in two steps, between which another interface looks better.
const settleTime = 200 * time.Millisecond

// Follow returns when the uplink is another one than u, or has another address
// or MTU, and can be used: the uplink as it is now. It stays with u's interface
// and address as long as they work, whatever the choice would be today: a
// default route that somebody else gets, such as a VPN, does not move a host.
//
// While there is no usable uplink it waits, and tell hears why; nil when it is
// over. Follow returns ctx's error when ctx ends.
func Follow(ctx context.Context, c Choice, u Uplink, tell func(problem error)) (Uplink, error) {
	changes, stop, err := subscribe() // before the first look
	if err != nil {
		return Uplink{}, err
	}
	defer stop()

	settle := time.NewTimer(0)
	settle.Stop()
	defer settle.Stop()
	var next Uplink // u's successor, if it lasts
	var said string
	for settled := false; ; {
		now, err := look(c, u)
		problem := ""
		if err != nil {
			now, problem = u, err.Error() // u for the time being
		}
		if problem != said {
			ratelog.Warningf("uplink iface=%s problem=%q", u.Name, problem)
			said = problem
			tell(err)
		}
		switch {
		case now == u:
			settle.Stop()
			next = Uplink{}
		case now == next && settled:
			return now, nil
		case now != next:
			next = now
			settle.Reset(settleTime)
		}
		settled = false
		select {
		case <-ctx.Done():
			return Uplink{}, ctx.Err()
		case <-changes:
		case <-settle.C:
			settled = true
		case <-time.After(clock.UntilTick(sayEvery)):
		}
	}
}

func look(c Choice, u Uplink) (Uplink, error) {
	h, err := readHost()
	if err != nil {
		return Uplink{}, err
	}
	return h.successor(c, u, kernel{})
}

// successor is the uplink that was u so far. It is u itself where nothing has
// changed, its reason included.
func (h host) successor(c Choice, u Uplink, r routes) (Uplink, error) {
	i := slices.IndexFunc(h.links, func(l link) bool { return slices.Contains(l.names, u.Name) })
	if i >= 0 && h.links[i].up && h.links[i].has(u.Addr) {
		return h.links[i].with(u.Addr, u.Reason), nil
	}
	next, err := c.pick(h, r)
	switch {
	case err == nil:
		return next, nil
	case i < 0:
		return next, fmt.Errorf("interface %s is gone; %w", u.Name, err)
	case !h.links[i].up:
		return next, fmt.Errorf("interface %s is down; %w", u.Name, err)
	case c.byAddr():
		return next, err
	}
	// The route by which it was chosen is often gone with its old address.
	next, e := h.links[i].uplink(netip.Addr{}, u.Reason)
	if e != nil {
		return next, fmt.Errorf("%w; %w", e, err)
	}
	return next, nil
}

// byAddr tells that an interface was asked for by an address.
func (c Choice) byAddr() bool {
	return slices.ContainsFunc(c.Ifaces, func(s string) bool {
		_, err := netip.ParseAddr(s)
		return err == nil
	})
}
