package udp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/subnet"
)

// openFirst opens the first data path that this machine has.
func (n *network) openFirst(ctx context.Context, kinds []pathKind) error {
	var passed []string
	var errs []error
	cleaned := false
	for _, k := range kinds {
		if k.name != kernelName && !cleaned {
			if err := Remove(ctx, n.plane.network); err != nil {
				return errors.Join(append(errs, err)...)
			}
			cleaned = true
		}
		path, err := k.open(ctx, n.plane)
		if err != nil {
			errs = append(errs, fmt.Errorf("open data path %s: %w", k.name, err))
			if _, final := errors.AsType[*finalError](err); final {
				break
			}
			passed = append(passed, fmt.Sprintf("not %s: %v", k.name, err))
			continue
		}
		n.path, n.name = path, k.name
		n.kernel, _ = path.(*kernel)
		n.reason = "named by -udp-datapath"
		if len(kinds) > 1 {
			n.reason = strings.Join(append([]string{"best that this machine has"}, passed...), "; ")
		}
		return nil
	}
	return errors.Join(errs...)
}

// network is the udp backend at work for one lease.
type network struct {
	*plane
	path         dataPath
	name, reason string
	kernel       *kernel // path, if it is that one; else nil
	link         *link
	reconciled   func(time.Duration) // nil: nobody asks

	mu        sync.Mutex // guards what follows
	publish   func(subnet.Attrs)
	published subnet.Attrs // what the lease tells now
}

func (n *network) MTU() int { return n.uplink.MTU - encapsulation }

// Announce implements backend.Announcer.
func (n *network) Announce(publish func(subnet.Attrs)) {
	n.mu.Lock()
	n.publish = publish
	n.mu.Unlock()
	if n.kernel == nil {
		n.tell("") // an earlier run may have told otherwise
	}
}

// tell makes the lease name the data path that others must know of.
func (n *network) tell(dataPath string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.publish == nil || n.published.DataPath == dataPath {
		return
	}
	n.published.DataPath = dataPath
	n.publish(n.published)
}

func (n *network) Apply(events []subnet.Event) {
	usable := make([]subnet.Event, 0, len(events))
	for _, e := range events {
		if l := e.Lease; e.Type == subnet.Added && n.plane.network.Contains(l.Attrs.PublicIP) {
			// Its datagrams would be routed into the tunnel, and wrapped again.
			ratelog.Errorf("skip peer subnet=%v reason=%q", l.Subnet, fmt.Sprintf("its PublicIP %v lies in Network %v", l.Attrs.PublicIP, n.plane.network))
			e = subnet.Event{Type: subnet.Removed, Lease: &subnet.Lease{Subnet: l.Subnet}}
		}
		usable = append(usable, e)
	}
	n.table.apply(usable, n.local.Port())
	if n.kernel != nil {
		n.kernel.apply(usable)
		n.tellKernel()
	}
}

// tellKernel tells the other hosts whether they may send to our programs.
func (n *network) tellKernel() {
	attached, failed := n.kernel.works()
	switch {
	case attached:
		n.tell(kernelName)
	case failed != nil:
		n.tell("")
	}
}

func (n *network) Run(ctx context.Context) error {
	log.Infof("carry packets device=%s datapath=%s reason=%q detail=%q local=%v mtu=%d",
		n.path.deviceName(), n.name, n.reason, n.path.detail(), n.local, n.MTU())
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.path.run(ctx) })
	g.Go(func() error { return n.link.run(ctx) })
	err := g.Wait()
	if err != nil && errors.As(n.link.configure(), new(netlink.LinkNotFoundError)) {
		return fmt.Errorf("%w: %s: %w", backend.ErrGone, n.path.deviceName(), err)
	}
	return err
}

func (n *network) Close() error {
	if err := errors.Join(n.path.close(), n.link.close(), n.mtus.close()); err != nil {
		return fmt.Errorf("close %s: %w", n.path.deviceName(), err)
	}
	return nil
}

// DataPath implements backend.Network.
func (n *network) DataPath() string {
	n.table.mu.Lock()
	defer n.table.mu.Unlock()
	if n.kernel != nil {
		if _, failed := n.kernel.works(); failed != nil {
			return offloadName
		}
	}
	return n.name
}

func (n *network) Stats() backend.Stats {
	s := backend.Stats{DataPath: n.DataPath(), Reason: n.reason + "; " + n.path.detail(), Peers: n.table.stats(), Drops: n.drops.snapshot()}
	if n.kernel != nil {
		n.kernel.addTo(&s)
		if _, failed := n.kernel.works(); failed != nil {
			s.Reason = fmt.Sprintf("the kernel path failed: %v; %s", failed, n.path.detail())
		}
	}
	return s
}
