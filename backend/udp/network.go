package udp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

// network is the udp backend at work for one lease.
type network struct {
	*pathConfig
	path   dataPath
	reason string // for the choice of path
	// applied is closed by the first Apply, if path comes from the network before: packets
	// wait in it until then. It is nil otherwise.
	applied chan struct{}
	entered sync.Once // closes applied
	left    bool      // Close leaves path open, for the next network
	routes  *routeFollower
	// reconcilers, by family, keep the device and its routes; nil for a family that is
	// not inside.
	reconcilers [2]*rtnl.Reconciler
	closers     []func() error // in the order of opening

	mu        sync.Mutex // guards what follows
	publish   func(subnet.Attrs)
	published subnet.Attrs // the lease's attributes
}

// openFirst opens the first data path that works on this machine. The network before
// has found that out, if it has left its path.
func (n *network) openFirst(ctx context.Context, kinds []pathKind, before *kept) error {
	if before != nil {
		return n.takeOver(before)
	}
	var skipped []string
	var errs []error
	removed := false
	for _, k := range kinds {
		if k.name != kernelName && !removed {
			for _, f := range n.Inside() {
				if err := Remove(ctx, n.Of(f).Network); err != nil {
					return errors.Join(append(errs, err)...)
				}
			}
			removed = true
		}
		path, err := k.open(ctx, n.pathConfig)
		if err != nil {
			errs = append(errs, fmt.Errorf("open data path %s: %w", k.name, err))
			if _, final := errors.AsType[*finalError](err); final {
				break
			}
			skipped = append(skipped, fmt.Sprintf("not %s: %v", k.name, err))
			continue
		}
		n.path = path
		n.closers = append(n.closers, n.closePath)
		n.reason = "named by -udp-datapath"
		if len(kinds) > 1 {
			n.reason = strings.Join(append([]string{"best that this machine has"}, skipped...), "; ")
		}
		return nil
	}
	return errors.Join(errs...)
}

// Announce implements backend.Announcer.
func (n *network) Announce(publish func(subnet.Attrs)) {
	n.mu.Lock()
	n.publish = publish
	n.mu.Unlock()
	if n.path.name() != kernelName {
		n.announceDataPath("", "") // the lease of an earlier run may name another
	}
}

// announceDataPath makes the lease name the data path, if other hosts must know
// it, and the pairs of families that it takes.
func (n *network) announceDataPath(name, pairs string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.publish == nil || n.published.DataPath == name && n.published.DataPathPairs == pairs {
		return
	}
	n.published.DataPath, n.published.DataPathPairs = name, pairs
	n.publish(n.published)
}

// Apply implements backend.Network.
func (n *network) Apply(events []subnet.Event) {
	n.table.apply(events)
	if k, ok := n.path.(*kernel); ok {
		k.apply(events)
	}
	if n.applied != nil {
		n.entered.Do(func() { close(n.applied) })
	}
}

// Run implements backend.Network.
func (n *network) Run(ctx context.Context) error {
	device := n.path.deviceName()
	log.Infof("carry packets device=%s datapath=%s reason=%q detail=%q local=%s mtu=%d",
		device, n.path.name(), n.reason, n.path.detail(), n.localNames(), n.MTU())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.runPath(ctx) })
	g.Go(func() error { return n.routes.run(ctx, n.followed) })
	for _, f := range n.Inside() {
		g.Go(func() error { return n.reconcilers[f].Run(ctx) })
	}
	err := g.Wait()
	if err == nil || errors.Is(err, backend.ErrGone) {
		return err
	}
	// The reader may find out first that the device is gone.
	if exists, lookupErr := rtnl.LinkExists(n.links, device); lookupErr == nil && !exists {
		return fmt.Errorf("%w: %s: %w", backend.ErrGone, device, err)
	}
	return err
}

// runPath moves packets until ctx ends. Those that wait in a path of the network before
// find the peers in the table.
func (n *network) runPath(ctx context.Context) error {
	if n.applied != nil {
		select {
		case <-n.applied:
		case <-ctx.Done():
			return nil
		}
	}
	return n.path.run(ctx)
}

// followed runs after the table's arrivals were read anew.
func (n *network) followed() {
	if k, ok := n.path.(*kernel); ok {
		k.follow()
	}
}

// Close implements backend.Network. It also closes a network that is only partly
// open.
func (n *network) Close() error {
	var errs []error
	for _, c := range slices.Backward(n.closers) {
		errs = append(errs, c())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close udp network: %w", err)
	}
	return nil
}

// DataPath implements backend.Network.
func (n *network) DataPath() string { return n.path.name() }

// Encapsulation implements backend.Network.
func (n *network) Encapsulation() backend.Encapsulation {
	switch n.DataPath() {
	case kernelName:
		return backend.WholeByKernel
	case offloadName:
		return backend.JoinedByProcess
	}
	return backend.SinglyByProcess
}

// Stats implements backend.Network.
func (n *network) Stats() backend.Stats {
	s := backend.Stats{DataPath: n.DataPath(), Reason: n.reason + "; " + n.path.detail(), Peers: n.table.stats(), Drops: n.drops.snapshot()}
	if k, ok := n.path.(*kernel); ok {
		k.addTo(&s)
	}
	return s
}

// Check implements backend.Checker. Nobody else can change the table in user
// space. Any program can change the device, its routes, and the kernel path's
// programs and maps.
func (n *network) Check() error {
	var errs []error
	for _, f := range n.Inside() {
		if err := rtnl.CheckUp(n.links, n.path.deviceName(), n.address(f), n.deviceMTU()); err != nil {
			errs = append(errs, err) // the route is gone, too
			continue
		}
		errs = append(errs, n.reconcilers[f].Check())
	}
	if err := checkTUN(n.links, n.path); err != nil {
		for _, f := range n.Inside() {
			n.reconcilers[f].Wake() // older kernels announce no such change
		}
		errs = append(errs, err)
	}
	if k, ok := n.path.(*kernel); ok {
		errs = append(errs, k.check())
	}
	return errors.Join(errs...)
}

// localNames lists our addresses for the log.
func (n *network) localNames() string {
	var all []string
	for _, f := range n.outer {
		all = append(all, n.locals[f].String())
	}
	return strings.Join(all, ",")
}
