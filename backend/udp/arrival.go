package udp

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
)

const (
	// followInterval and followBurst bound how often a flapping link causes a
	// look at the routes to all peers.
	followInterval = 300 * time.Millisecond
	followBurst    = 3
)

// arrivals are the indexes of the interfaces that a host's datagrams may arrive by:
// those that this host's routes to it name. A container could send a datagram with a
// peer's address as source, but not by these. One word serves the usual host.
type arrivals struct {
	first atomic.Uint32
	all   atomic.Pointer[[]uint32] // nil: first alone
}

func (a *arrivals) contains(index uint32) bool {
	if index == a.first.Load() {
		return index != 0
	}
	all := a.all.Load()
	return all != nil && slices.Contains(*all, index)
}

// list returns the indexes, sorted.
func (a *arrivals) list() []uint32 {
	if all := a.all.Load(); all != nil {
		return *all
	}
	if first := a.first.Load(); first != 0 {
		return []uint32{first}
	}
	return nil
}

// set returns false if the list is the same already.
func (a *arrivals) set(indexes []uint32) bool {
	if slices.Equal(a.list(), indexes) {
		return false
	}
	var first uint32
	if len(indexes) > 0 {
		first = indexes[0]
	}
	a.all.Store(nil)
	if len(indexes) > 1 {
		a.all.Store(&indexes)
	}
	a.first.Store(first)
	return true
}

// routeFollower keeps the arrivals of all peers as the host's routes are.
type routeFollower struct {
	table    *table
	reach    *rtnl.Reach
	listener *reconcile.Listener
	changed  reconcile.Signal
	passed   func(time.Duration) // see backend.Config.Reconciled; may be nil
}

// newRouteFollower opens the sockets in the network namespace of the calling thread.
// From then on it misses no change. It serves the table.
func newRouteFollower(t *table, passed func(time.Duration)) (*routeFollower, error) {
	reach, err := rtnl.NewReach()
	if err != nil {
		return nil, err
	}
	f := &routeFollower{table: t, reach: reach, changed: reconcile.NewSignal(), passed: passed}
	groups := []int{unix.RTNLGRP_LINK}
	for _, outer := range t.config.outer {
		if outer == inet.IPv4 {
			groups = append(groups, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE)
		} else {
			groups = append(groups, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE)
		}
	}
	f.listener, err = reconcile.Listen(unix.NETLINK_ROUTE, groups...)
	if err != nil {
		reach.Close()
		return nil, err
	}
	t.interfacesTo = f.interfacesTo
	return f, nil
}

func (f *routeFollower) close() error {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	f.table.interfacesTo = nil
	if err := f.listener.Close(); err != nil {
		return err
	}
	return f.reach.Close()
}

// interfacesTo reads the interfaces to some hosts. After an error it returns none,
// and the next step tries again. The caller holds the table's mu.
func (f *routeFollower) interfacesTo(hosts []netip.Addr) (map[netip.Addr][]uint32, error) {
	found, err := f.reach.Interfaces(hosts)
	if err != nil {
		f.changed.Set()
		return nil, fmt.Errorf("read routes to peers: %w", err)
	}
	return found, nil
}

// run updates the table after changes of links, addresses, routes or rules, and then
// calls followed, until ctx ends.
func (f *routeFollower) run(ctx context.Context, followed func()) error {
	return reconcile.Loop{
		Task:     "follow routes to peers",
		Changed:  f.changed,
		Interval: followInterval,
		Burst:    followBurst,
		Watch: func(ctx context.Context, changed func()) error {
			return f.listener.Run(ctx, nil, changed)
		},
		Step: func(context.Context) error {
			began := time.Now()
			if err := f.table.follow(); err != nil {
				return err
			}
			followed()
			if f.passed != nil {
				f.passed(time.Since(began))
			}
			return nil
		},
	}.Run(ctx)
}

// follow reads the arrivals of all hosts anew. Those of a host whose route is gone
// become none.
func (t *table) follow() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.interfacesTo == nil {
		return nil
	}
	hosts := make([]netip.Addr, 0, len(t.outer))
	for a := range t.outer {
		hosts = append(hosts, a.Addr())
	}
	found, err := t.interfacesTo(hosts)
	if err != nil {
		return err
	}
	for a, host := range t.outer {
		host.set(found[a.Addr()])
	}
	return nil
}

// learn reads the arrivals of hosts that have no lease yet. The caller holds mu.
func (t *table) learn(hosts []netip.Addr) map[netip.Addr][]uint32 {
	hosts = slices.DeleteFunc(hosts, func(a netip.Addr) bool { return t.outer[inet.RawOf(a)] != nil })
	if len(hosts) == 0 || t.interfacesTo == nil {
		return nil
	}
	found, err := t.interfacesTo(hosts)
	if err != nil {
		ratelog.Errorf("learn peers: %v", err)
	}
	return found
}

// arrivalsOf returns the interfaces that a host's datagrams may arrive by. It returns none
// for no address.
func (t *table) arrivalsOf(host netip.Addr) []uint32 {
	if !host.IsValid() {
		return nil
	}
	t.outerMu.RLock()
	defer t.outerMu.RUnlock()
	if h := t.outer[inet.RawOf(host)]; h != nil {
		return h.list()
	}
	return nil
}
