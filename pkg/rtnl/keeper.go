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

	"github.com/coreos/flannel/pkg/ratelog"
)

// Config is what a Keeper works for.
type Config struct {
	// Network is the range that our routes lead into.
	Network netip.Prefix
	// Device is the backend's own interface: all permanent entries on it are
	// ours. Empty: the backend has none.
	Device string
	// Uplink is the interface to the other hosts, which is not ours.
	Uplink string
	// Prepare, if not nil, makes Device as it should be. It is called before
	// every pass, so it must change nothing where all is right. It may call Set,
	// and runs on one goroutine at a time.
	Prepare func() error
	// Passed, if not nil, is told how long each pass took.
	Passed func(time.Duration)
}

// Keeper keeps the kernel's state as desired. Its methods are safe for
// concurrent use.
type Keeper struct {
	config Config
	// ctx ends with Close; requests to the kernel take it.
	ctx    context.Context
	cancel context.CancelFunc
	links  *netlink.Handle
	watch  *watcher
	wake   chan struct{} // holds one token: make a pass

	pass sync.Mutex // held over a pass, Prepare included

	mu      sync.Mutex // guards what follows, and the kernel's tables against ourselves
	conn    *conn
	owners  map[netip.Prefix]State
	want    desired        // the sum of owners
	asked   bool           // Sync was called: all that is desired is known
	begun   bool           // a pass has come past Prepare
	known   map[string]int // indexes of the links, as of the last pass
	refused map[routeKey]*Refusal
}

// New opens the sockets, in the network namespace of the calling thread. The
// kernel is not changed before Sync.
func New(c Config) (*Keeper, error) {
	k := &Keeper{config: c, owners: make(map[netip.Prefix]State), want: newDesired(), wake: make(chan struct{}, 1), refused: make(map[routeKey]*Refusal)}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	var err error
	if k.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	if k.conn, err = dial(); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	// Listen from here on, so that no change falls between a pass and Run.
	if k.watch, err = watch(k); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	return k, nil
}

// Close releases the sockets; the kernel's state stays as it is. Run must have
// returned.
func (k *Keeper) Close() error {
	k.cancel()
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	if k.conn != nil {
		errs = append(errs, k.conn.close())
	}
	if k.watch != nil {
		errs = append(errs, k.watch.close())
	}
	k.links.Close()
	return errors.Join(errs...)
}

// Set makes each given State what its owner wants, in place of what that owner
// wanted before; the zero State is nothing. Owners are named by prefixes: a
// peer by its subnet. Once Sync was called, the kernel is changed before Set
// returns, at a cost that depends on what is given, not on all that is desired;
// what fails is left to Run.
func (k *Keeper) Set(owners map[netip.Prefix]State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var remove, add states
	for owner, s := range owners {
		remove.append(k.owners[owner])
		add.append(s)
		if s.empty() {
			delete(k.owners, owner)
		} else {
			k.owners[owner] = s
		}
	}
	k.exchange(remove, add)
}

// exchange changes what is desired and, if all of that is known, the kernel, on
// the assumption that it has what was desired. A wrong assumption shows as a
// failure.
func (k *Keeper) exchange(remove, add states) {
	routes := k.want.routes.exchange(remove.routes, add.routes, Route.key)
	neighs := k.want.neighs.exchange(remove.neighs, add.neighs, Neigh.key)
	fdb := k.want.fdb.exchange(remove.fdb, add.fdb, FDB.key)
	if !k.begun {
		return
	}
	d := new(difference)
	s := scope{k.config, k.known}
	for _, c := range fdb {
		if c.is {
			d.putNeigh(s, c.after.Dev, madeFDB(c.after, s.links[c.after.Dev]))
		} else {
			d.removeNeigh(madeFDB(c.before, s.links[c.before.Dev]))
		}
	}
	for _, c := range neighs {
		if c.is {
			d.putNeigh(s, c.after.Dev, madeNeigh(c.after, s.links[c.after.Dev]))
		} else {
			d.removeNeigh(madeNeigh(c.before, s.links[c.before.Dev]))
		}
	}
	for _, c := range routes {
		k.exchangeRoute(d, s, c)
	}
	if err := k.run(d); err != nil {
		d.fail(err)
	}
	if len(d.failed)+len(d.refused) > 0 {
		log.V(1).Infof("change kernel state: leave to a pass reason=%q", errors.Join(d.failed...))
		k.poke() // a pass finds out why
	}
}

func (k *Keeper) exchangeRoute(d *difference, s scope, c change[Route]) {
	refused := c.was && k.refused[c.before.key()] != nil
	switch {
	case c.is && refused: // what is in the way is not ours to replace
		d.refused = append(d.refused, k.refused[c.before.key()])
	case c.is && c.was:
		d.replaceRoute(s, c.after, made(c.before, s.links[c.before.Dev]))
	case c.is:
		d.addRoute(s, c.after)
	case refused:
		delete(k.refused, c.before.key())
	default:
		d.removeRoute(made(c.before, s.links[c.before.Dev]))
	}
}

// Sync makes a pass. Before it is called first, nothing is changed: what an
// earlier run left stays in force until it is known what is desired. The error
// names what could not be done, and Run tries it again; refusals are no error.
func (k *Keeper) Sync() error {
	k.mu.Lock()
	k.asked = true
	k.mu.Unlock()
	err := k.sync()
	if err != nil {
		k.poke()
	}
	return err
}

// Begin makes the first pass; called again, it does nothing. It is for who has
// just Set all that is desired for the first time.
func (k *Keeper) Begin() error {
	if k.wasAsked() {
		return nil
	}
	return k.Sync()
}

func (k *Keeper) sync() error {
	k.pass.Lock()
	defer k.pass.Unlock()
	if k.config.Passed != nil {
		defer func(began time.Time) { k.config.Passed(time.Since(began)) }(time.Now())
	}
	if k.config.Prepare != nil {
		if err := k.config.Prepare(); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.begun = true
	d, err := k.compare()
	if err != nil {
		return err
	}
	if n := len(d.remove) + len(d.add); n > 0 {
		log.Infof("change kernel state network=%v add=%d remove=%d of=%d routes, %d neighbours, %d forwarding entries",
			k.config.Network, len(d.add), len(d.remove), len(k.want.routes), len(k.want.neighs), len(k.want.fdb))
	}
	if err := k.run(d); err != nil {
		return err
	}
	k.note(d.refused)
	return summary(d.failed)
}

// compare looks at the kernel's tables; the caller holds mu.
func (k *Keeper) compare() (*difference, error) {
	s, have, err := k.look()
	if err != nil {
		return nil, err
	}
	d := new(difference)
	d.fdb(s, k.want.fdb, have.fdb)
	d.neighs(s, k.want.neighs, have.neighs)
	d.routes(s, k.want.routes, have.routes)
	return d, nil
}

// run does what d says and collects in it what fails.
func (k *Keeper) run(d *difference) error {
	if err := k.conn.do(k.ctx, d.remove); err != nil {
		return err
	}
	if err := k.conn.do(k.ctx, d.add); err != nil {
		return err
	}
	return k.conn.do(k.ctx, d.withdraw)
}

// maxReasons bounds how many failures an error lists.
const maxReasons = 3

func summary(failed []error) error {
	if len(failed) <= maxReasons {
		return errors.Join(failed...)
	}
	return fmt.Errorf("%w; and %d more", errors.Join(failed[:maxReasons]...), len(failed)-maxReasons)
}

// note replaces the refusals and logs those that are new, and those that are
// over.
func (k *Keeper) note(refused []*Refusal) {
	now := make(map[routeKey]*Refusal, len(refused))
	for _, r := range refused {
		now[r.Route.key()] = r
		if old := k.refused[r.Route.key()]; old == nil || old.Error() != r.Error() {
			ratelog.Errorf("refuse route dst=%v via=%v dev=%s reason=%q", r.Route.Dst, r.Route.Via, r.Route.Dev, r.Err)
		}
	}
	for key := range k.refused {
		if now[key] == nil {
			log.Infof("route is no longer refused dst=%v", key.dst)
		}
	}
	k.refused = now
}

// Refusals are the routes that cannot be had at present, by destination.
func (k *Keeper) Refusals() map[netip.Prefix]*Refusal {
	k.mu.Lock()
	defer k.mu.Unlock()
	refused := make(map[netip.Prefix]*Refusal, len(k.refused))
	for key, r := range k.refused {
		refused[key.dst] = r
	}
	return refused
}

// Wake asks Run for a pass.
func (k *Keeper) Wake() { k.poke() }

func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default: // it has been asked
	}
}
