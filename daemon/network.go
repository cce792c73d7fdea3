package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// runner sets up and runs one network at a time.
type runner struct {
	options    *Options
	state      *state
	peers      *peers
	observer   *observer
	reporter   *reporter
	reconciles *status.Reconciles

	// The functions that reach the kernel and systemd.
	check  func(network, own netip.Prefix, peers func() []netip.Prefix) (*hostroute.Checker, error)
	follow func(context.Context, uplink.Choice, uplink.Uplink, func(problem error)) (uplink.Uplink, error)
	remove func(ctx context.Context, backendType string, network netip.Prefix) error
	notify func(message string)
}

func newRunner(o *Options, s *state, p *peers, ob *observer, r *reporter, reconciles *status.Reconciles) *runner {
	return &runner{options: o, state: s, peers: p, observer: ob, reporter: r, reconciles: reconciles,
		check: hostroute.NewChecker, follow: uplink.Follow, remove: all.Remove, notify: notifySystemd}
}

// uplinkChangedError ends a network that was set up for another uplink.
type uplinkChangedError struct{ to uplink.Uplink }

func (e *uplinkChangedError) Error() string {
	return fmt.Sprintf("the uplink is now %s with address %v and MTU %d", e.to.Name, e.to.Addr, e.to.MTU)
}

// run sets up the network of m for the present uplink, and runs network and lease
// until one fails or ctx ends. Errors: *networkSetupError, *uplinkChangedError,
// backend.ErrGone, subnet.ErrLost, or the failure.
func (r *runner) run(ctx context.Context, m *membership) error {
	network, err := m.backend.Up(ctx, m.lease)
	if err != nil {
		return &networkSetupError{fmt.Errorf("set up backend %s for %v: %w", m.config.BackendType, m.lease.Subnet, err)}
	}
	r.state.update(func(s *progress) { s.network, s.applied, s.uplinkProblem = network, false, "" })
	err = r.runNetwork(ctx, m, network)
	r.state.removeNetwork()
	return r.removeIfLost(ctx, m, errors.Join(err, network.Close()))
}

// runNetwork writes subnet.env, then runs the tasks that end with the network.
func (r *runner) runNetwork(ctx context.Context, m *membership, network backend.Network) error {
	err := r.reporter.subnetFile.Put(subnetfile.Env{
		Network: m.config.Network, Subnet: m.lease.Subnet, MTU: network.MTU(), IPMasq: r.options.ipMasq,
	})
	if err != nil {
		return err
	}
	r.reporter.cniConf.Publish()
	if a, ok := network.(backend.Announcer); ok {
		a.Announce(m.manager.Publish)
	}
	return runTogether(ctx, network.Run, m.renew, m.manager.WatchConfig, r.watchUplink,
		func(ctx context.Context) error { return r.probe(ctx, m, network) },
		func(ctx context.Context) error { return r.probeOffloads(ctx, m, network) },
		func(ctx context.Context) error { return r.checkRoutes(ctx, m) },
		func(ctx context.Context) error {
			return m.manager.Watch(ctx, m.lease, func(events []subnet.Event) {
				began := time.Now()
				network.Apply(events)
				r.reconciles.Store(time.Since(began))
				r.peers.apply(events)
				if routes := r.state.get().routes; routes != nil {
					routes.PeersChanged()
				}
				r.noteApplied(m, network)
			})
		})
}

// task runs one part of the daemon. It returns when ctx ends (nil) or the part
// fails (the error); the goroutines that it started have ended by then.
type task func(ctx context.Context) error

// runTogether runs tasks side by side until one fails or ctx ends. It returns the
// first error, after all of them have ended.
func runTogether(ctx context.Context, tasks ...task) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, task := range tasks {
		g.Go(func() error { return task(ctx) })
	}
	return g.Wait()
}

// removeIfLost returns err. If the lease is lost, it first withdraws the container
// engine's configuration, and removes the kernel state that would keep forwarding for
// a subnet that another host has now.
func (r *runner) removeIfLost(ctx context.Context, m *membership, err error) error {
	if errors.Is(err, subnet.ErrLost) {
		err = errors.Join(err, r.reporter.cniConf.Withdraw(), r.remove(ctx, m.config.BackendType, m.config.Network))
	}
	return err
}

// noteApplied records that the network has its full set of peers. At the first
// call it also logs the line "ready" and notifies systemd.
func (r *runner) noteApplied(m *membership, network backend.Network) {
	before := r.state.wasReady()
	r.state.update(func(s *progress) { s.ready, s.applied = true, true })
	if !before {
		log.Info(r.reporter.readyLine(m.config, m.lease, network))
		r.notify(sd.SdNotifyReady)
	}
}

// watchUplink returns *uplinkChangedError when the uplink is another one or has
// another address or MTU, and nil when ctx ends.
func (r *runner) watchUplink(ctx context.Context) error {
	next, err := r.follow(ctx, r.options.iface, r.state.get().uplink, func(problem error) {
		r.state.update(func(s *progress) {
			s.uplinkProblem = ""
			if problem != nil {
				s.uplinkProblem = problem.Error()
			}
		})
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	}
	return &uplinkChangedError{next}
}

// checkRoutes checks until ctx ends that no other program's route takes the packets
// for peers or for our subnet. A failure to check is logged, and does not end the
// network.
func (r *runner) checkRoutes(ctx context.Context, m *membership) error {
	if m.config.BackendType != "alloc" { // alloc has no routes
		c, err := r.check(m.config.Network, m.lease.Subnet, r.peers.subnets)
		if err == nil {
			r.state.update(func(s *progress) { s.routes = c })
			err = c.Run(ctx)
			r.state.update(func(s *progress) { s.routes = nil })
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			log.Warningf("routes to peers are not checked: %v", err)
		}
	}
	<-ctx.Done()
	return nil
}

// probe probes the peers until ctx ends. A failure to probe is logged, and does
// not end the network.
func (r *runner) probe(ctx context.Context, m *membership, network backend.Network) error {
	if r.options.probeInterval > 0 && all.CarriesPackets(m.config.BackendType) {
		p := probe.New(probe.Config{
			Subnet: m.lease.Subnet, MTU: network.MTU(), Interval: r.options.probeInterval, Peers: r.peers.subnets,
			Changed: func(peer netip.Prefix, silent bool) {
				if r.peers.has(peer) { // observer reports a peer that left as such
					r.observer.peerSilent(peer, silent)
				}
			},
		})
		r.state.update(func(s *progress) { s.prober = p })
		if err := p.Run(ctx); err != nil {
			log.Warningf("peers are not probed: %v", err)
			r.state.update(func(s *progress) { s.prober = nil })
		}
	}
	<-ctx.Done()
	return nil
}

// probeOffloads probes the offloads on the paths to the peers until ctx ends. A failure
// to probe is logged, and does not end the network.
func (r *runner) probeOffloads(ctx context.Context, m *membership, network backend.Network) error {
	// So far the probes have no IPv6.
	if r.options.probesOffloads(m.config) && m.lease.Subnet.IsValid() {
		addr := func(l *subnet.Lease) netip.AddrPort {
			return netip.AddrPortFrom(all.ProbeAddr(m.config.BackendType, l.Subnet, l.Attrs.PublicIP), l.Attrs.OffloadPort)
		}
		err := runOffloads(ctx, r.options, r.state, offloadprobe.Config{
			Local: addr(&m.lease), MTU: network.MTU(), Interval: r.options.offloadInterval,
			Peers: func() (peers []offloadprobe.Peer) {
				for _, l := range r.peers.leases() {
					if l.Attrs.OffloadPort != 0 && l.Subnet.IsValid() { // without a port: another flannel, which would not answer
						peers = append(peers, offloadprobe.Peer{Subnet: l.Subnet, Addr: addr(l)})
					}
				}
				return peers
			},
			Changed: func(c offloadprobe.Change) {
				if r.peers.has(c.Peer) {
					r.observer.offloadChanged(c)
				}
			},
		})
		if err != nil {
			log.Warningf("offloads are not probed: %v", err)
		}
	}
	<-ctx.Done()
	return nil
}
