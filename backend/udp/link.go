package udp

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/rtnl"
)

const (
	// lookEvery and lookBurst bound how often the kernel is looked at: a link
	// that flaps must not keep a processor busy.
	lookEvery = 300 * time.Millisecond
	lookBurst = 3
)

// link keeps the device, its address and its route as they should be, and the
// kernel data path attached where routes to peers lead.
type link struct {
	network *network
	netlink *netlink.Handle
	changes *rtnl.Changes
}

// openLink opens the sockets, in the network namespace of the calling thread.
// No change from here on is missed.
func openLink(n *network) (*link, error) {
	l := &link{network: n}
	var err error
	if l.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	if l.changes, err = rtnl.ListenChanges(); err != nil {
		l.netlink.Close()
		return nil, err
	}
	return l, nil
}

func (l *link) close() error {
	l.netlink.Close()
	return l.changes.Close()
}

// configure makes the device what it should be.
func (l *link) configure() error {
	n := l.network
	return configureDevice(l.netlink, n.path.deviceName(), n.plane.network, n.own, n.MTU())
}

// run looks at the kernel after each change until ctx ends (nil) or changes can
// no longer be heard of.
func (l *link) run(ctx context.Context) error {
	changed := make(chan struct{}, 1)
	changed <- struct{}{} // since Up
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return l.changes.Run(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	})
	g.Go(func() error {
		l.look(ctx, changed)
		return nil
	})
	return g.Wait()
}

// look mends what has changed. What it cannot mend it tries again after a while,
// also if nothing else changes: the kernel may have been out of memory, or what
// stood in the way does not announce that it has gone.
func (l *link) look(ctx context.Context, changed <-chan struct{}) {
	limit := rate.NewLimiter(rate.Every(lookEvery), lookBurst)
	intervals := backoff.New()
	var again <-chan time.Time
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-again:
		}
		if limit.Wait(ctx) != nil {
			return
		}
		began := time.Now()
		err := l.configure()
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			err = nil // the device's reader has found out, too
		}
		switch {
		case err == nil:
			said, again = "", nil
			intervals.Reset()
		case err.Error() != said:
			said = err.Error()
			ratelog.Errorf("keep device device=%s reason=%q", l.network.path.deviceName(), err)
			fallthrough
		default:
			again = time.After(intervals.NextBackOff())
		}
		if k := l.network.kernel; k != nil {
			k.follow()
			l.network.tellKernel()
		}
		if l.network.reconciled != nil {
			l.network.reconciled(time.Since(began))
		}
	}
}
