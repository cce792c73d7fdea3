package rtnl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netdev"
	"github.com/coreos/flannel/pkg/reconcile"
)

const (
	// passInterval and passBurst bound the passes that announcements cause. A
	// flood of them, or a quarrel with another program about an entry, must not
	// keep a processor busy: a pass over ten thousand peers takes some 50 ms.
	passInterval = 200 * time.Millisecond
	passBurst    = 5
	// passEvery is the period of passes without an announcement.
	passEvery = 5 * time.Minute
)

// Config describes the network that a Reconciler works for.
type Config struct {
	// Network is the range that our routes lead into. Its family is that of all
	// routes and neighbours.
	Network netip.Prefix
	// Device is the backend's own interface. All permanent entries on it are
	// ours. Empty: the backend has none.
	Device string
	// DeviceTypes are the types that Device may have (netlink.Link.Type). Another
	// program's device of that name is not touched. Empty: any.
	DeviceTypes []string
	// Uplink is the interface to the other hosts. It is not ours.
	Uplink string
	// Blackholes: the Reconciler keeps routes of the kind Blackhole, and no others.
	Blackholes bool
	// Prepare, if not nil, makes Device as it should be. Each pass calls it first,
	// so it must change nothing if all is right. It may call Update. It runs on
	// one goroutine at a time. An error of reconcile.Stop ends Run.
	Prepare func() error
	// Passed, if not nil, receives the duration of each pass.
	Passed func(time.Duration)
}

// Reconciler keeps the kernel's state as desired. Its methods are safe for
// concurrent use.
type Reconciler struct {
	// Links requests links and addresses in the network namespace that New was
	// called in, until Close.
	Links *netlink.Handle

	config   Config
	ipv6     *netdev.IPv6Settings // nil for an IPv4 network
	listener *reconcile.Listener
	changed  reconcile.Signal

	passing sync.Mutex // held during a pass, Prepare included

	mu      sync.Mutex // guards what follows, and the kernel's tables against ourselves
	conn    *conn
	owners  map[netip.Prefix]State // nil before Reset
	want    desired                // the sum of owners
	known   map[string]int         // indexes of the links at the last pass; nil before it
	refused map[routeKey]*Refusal
	foreign map[routeKey]bool // where another program had a route at the last pass
}

// New opens the sockets, in the network namespace of the calling thread. The
// kernel's state stays as it is until Reset.
func New(c Config) (*Reconciler, error) {
	r := &Reconciler{config: c, want: newDesired(), changed: reconcile.NewSignal()}
	var err error
	if r.Links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	if r.conn, err = dial(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	// Listen from here on: a change between Reset and Run must not be missed.
	groups := []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE}
	if c.Network.Addr().Is6() {
		groups = []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE}
		if r.ipv6, err = netdev.OpenIPv6Settings(); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	if r.listener, err = reconcile.Listen(unix.NETLINK_ROUTE, groups...); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close releases the sockets; the kernel's state stays as it is. Run must have
// returned.
func (r *Reconciler) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	if r.conn != nil {
		errs = append(errs, r.conn.sock.Close())
	}
	if r.listener != nil {
		errs = append(errs, r.listener.Close())
	}
	if r.ipv6 != nil {
		errs = append(errs, r.ipv6.Close())
	}
	r.Links.Close()
	return errors.Join(errs...)
}

// Reset makes all, by owner, everything that is desired, and makes a pass. Owners
// are named by prefixes: a peer by its subnet. The caller must not change a
// State any more. What an earlier run left in the kernel stays in force until
// the first Reset. The error has the failures of the pass; Run tries again.
// Refusals are no error.
func (r *Reconciler) Reset(all map[netip.Prefix]State) error {
	r.mu.Lock()
	r.owners, r.want = make(map[netip.Prefix]State, len(all)), newDesired()
	for owner, s := range all {
		r.owners[owner] = s
		r.want.routes.add(s.Routes)
		r.want.neighs.add(s.Neighs)
	}
	r.mu.Unlock()
	err := r.pass()
	if err != nil {
		r.Wake()
	}
	return err
}

// Update replaces what some owners desire; the zero State is nothing. It changes
// the kernel before it returns. Its cost depends on the changes, not on all that
// is desired. What fails is left to Run. Before Reset, Update does nothing. If no
// pass has come past Prepare yet, Update leaves the kernel to that pass.
func (r *Reconciler) Update(changes map[netip.Prefix]State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners == nil {
		return
	}
	var before, after []State
	for owner, s := range changes {
		before, after = append(before, r.owners[owner]), append(after, s)
		if len(s.Routes)+len(s.Neighs) == 0 {
			delete(r.owners, owner)
		} else {
			r.owners[owner] = s
		}
	}
	r.change(before, after)
}

// change replaces States in the sum of what is desired, and in the kernel.
func (r *Reconciler) change(before, after []State) {
	d := r.replace(before, after)
	if r.known == nil {
		return
	}
	if err := r.execute(d); err != nil {
		d.failed = append(d.failed, err)
	}
	if len(d.failed)+len(d.refused) > 0 {
		log.V(1).Infof("change kernel state: leave to a pass reason=%q", errors.Join(d.failed...))
		r.Wake() // a pass finds out why
	}
}

// Run makes a pass after each announcement that concerns us, after a failure, and
// every few minutes, until ctx ends (nil). It returns an error if it can no
// longer receive announcements, or if Prepare stops it. It is called once.
func (r *Reconciler) Run(ctx context.Context) error {
	return reconcile.Loop{
		Task:     fmt.Sprintf("keep kernel state network=%v", r.config.Network),
		Changed:  r.changed,
		Interval: passInterval,
		Burst:    passBurst,
		Every:    passEvery,
		Watch: func(ctx context.Context, changed func()) error {
			return r.listener.Run(ctx, r.concerns, changed)
		},
		Step: func(context.Context) error { return r.pass() },
	}.Run(ctx)
}

// Wake makes Run make a pass.
func (r *Reconciler) Wake() { r.changed.Set() }

// Refusals returns the routes that the kernel does not take at present, by
// destination.
func (r *Reconciler) Refusals() map[netip.Prefix]*Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	refused := make(map[netip.Prefix]*Refusal, len(r.refused))
	for key, refusal := range r.refused {
		refused[key.dst] = refusal
	}
	return refused
}
