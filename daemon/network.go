package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
)

// runner sets up and runs one network at a time.
type runner struct {
	options    *Options
	state      *state
	joiner     *joiner
	peers      *peers
	observer   *observer
	reporter   *reporter
	reconciles *status.Reconciles
	// kept is what the network before has left for the next one; nil for nothing.
	kept io.Closer

	// The functions that reach the kernel and systemd.
	check  func(network, own netip.Prefix, peers func() []netip.Prefix) (*hostroute.Checker, error)
	follow func(context.Context, uplink.Choice, uplink.Uplink, func(problem error)) (uplink.Uplink, error)
	appear func(context.Context, uplink.Choice) (uplink.Uplink, error)
	remove func(ctx context.Context, backendType string, network netip.Prefix) error
	// blackhole keeps the route of -ip-blackhole-route, unblackhole removes it.
	blackhole   func(ctx context.Context, network, own netip.Prefix) error
	unblackhole func(network netip.Prefix) error
	notify      func(message string)
}

func newRunner(o *Options, s *state, j *joiner, ob *observer, r *reporter, reconciles *status.Reconciles) *runner {
	return &runner{options: o, state: s, joiner: j, peers: j.peers, observer: ob, reporter: r, reconciles: reconciles,
		check: hostroute.NewChecker, follow: uplink.Follow, appear: uplink.Wait, remove: all.Remove,
		blackhole: rtnl.KeepBlackhole, unblackhole: rtnl.RemoveBlackholes, notify: notifySystemd}
}

// uplinkChangedError ends a network that was set up for another uplink.
type uplinkChangedError struct{ to uplink.Uplink }

func (e *uplinkChangedError) Error() string {
	return fmt.Sprintf("the uplink is now %s with address %v and MTU %d", e.to.Name, e.to.Addr, e.to.MTU)
}

// run sets up the network of m for the present uplink, and runs network and lease
// until one fails or ctx ends. Errors: *networkSetupError, *uplinkChangedError,
// *adaptedError, backend.ErrGone, subnet.ErrLost, or the failure.
func (r *runner) run(ctx context.Context, m *membership) error {
	network, err := r.up(ctx, m)
	err = r.joiner.underlay.withoutIPv6(m.config, err, func() (err error) {
		if err = r.joiner.makeBackend(m); err == nil {
			network, err = r.up(ctx, m)
		}
		return err
	})
	if err != nil {
		return &networkSetupError{fmt.Errorf("set up backend %s for %s: %w", m.config.BackendType, m.lease.Subnets(), err)}
	}
	r.state.update(func(s *progress) {
		s.network, s.applied, s.replaced = network, false, ""
		for f := range s.sides {
			s.sides[f].problem = ""
		}
	})
	err = r.runNetwork(ctx, m, network)
	r.state.removeNetwork()
	return r.removeIfLost(ctx, m, errors.Join(err, r.leave(network, err)))
}

// up sets up the network of m with what the one before has left.
func (r *runner) up(ctx context.Context, m *membership) (backend.Network, error) {
	kept := r.kept
	r.kept = nil
	return backend.UpWith(ctx, m.backend, m.lease, kept)
}

// leave closes a network that err has ended. For one that follows at once it keeps what
// that can use.
func (r *runner) leave(network backend.Network, err error) error {
	if _, changed := errors.AsType[*uplinkChangedError](err); !changed && !isAdapted(err) { // promise: packets-wait-for-the-next-network
		return network.Close()
	}
	var closed error
	r.kept, closed = backend.Leave(network)
	return closed
}

// discard closes what a network has left for one that does not follow.
func (r *runner) discard() error {
	kept := r.kept
	r.kept = nil
	if kept == nil {
		return nil
	}
	return kept.Close()
}

// runNetwork writes subnet.env, then runs the tasks that end with the network.
func (r *runner) runNetwork(ctx context.Context, m *membership, network backend.Network) error {
	if err := r.writeSubnetFile(m, network.MTU()); err != nil {
		return err
	}
	r.reporter.cniConf.Publish()
	if a, ok := network.(backend.Announcer); ok {
		a.Announce(m.manager.Publish)
	}
	// adapt needs that nothing else writes the lease, and that packets flow.
	return runTogether(ctx, network.Run, func(ctx context.Context) error {
		for {
			if err := r.joiner.adapt(ctx, m, r.control(ctx, m, network)); !errors.Is(err, errStillLacking) {
				return err
			}
		}
	})
}

// control keeps the lease, and follows store and host, until one task ends or ctx
// does.
func (r *runner) control(ctx context.Context, m *membership, network backend.Network) error {
	tasks := []task{m.renew, m.manager.WatchConfig, m.awaitAttempt, r.watchUplinks(m),
		r.state.beside("offloads are not probed", func(ctx context.Context) error { return r.probeOffloads(ctx, m, network) }),
		func(ctx context.Context) error { return r.watchPeers(ctx, m, network) }}
	for _, f := range r.state.get().inside(m.config) {
		tasks = append(tasks,
			r.state.beside("routes to peers are not checked", func(ctx context.Context) error { return r.checkRoutes(ctx, m, f) }),
			r.state.beside("peers are not probed", func(ctx context.Context) error { return r.probe(ctx, m, network, f) }),
			r.state.beside("the blackhole for this host's subnet is not kept", func(ctx context.Context) error { return r.keepBlackhole(ctx, m, f) }))
	}
	return runTogether(ctx, tasks...)
}

// watchPeers gives the peers to the network until ctx ends. It leaves out those of
// families that the network does not carry, though the lease has a part of them.
func (r *runner) watchPeers(ctx context.Context, m *membership, network backend.Network) error {
	inside := r.state.get().inside(m.config)
	return m.manager.Watch(ctx, m.lease, func(events []subnet.Event) {
		events = slices.DeleteFunc(events, func(e subnet.Event) bool { return !slices.Contains(inside, e.Family) })
		began := time.Now()
		network.Apply(events)
		r.reconciles.Store(time.Since(began))
		r.peers.apply(events)
		for _, routes := range r.state.get().routes {
			if routes != nil {
				routes.PeersChanged()
			}
		}
		r.noteApplied(m, network)
	})
}

// writeSubnetFile writes the subnets of the families that the host carries.
func (r *runner) writeSubnetFile(m *membership, mtu int) error {
	env := subnetfile.Env{MTU: mtu, IPMasq: r.options.ipMasq}
	for _, f := range r.state.get().inside(m.config) {
		network, own := m.config.RangeOf(f).Network, m.lease.SubnetOf(f)
		if f == inet.IPv4 {
			env.Network, env.Subnet = network, own
		} else {
			env.IPv6Network, env.IPv6Subnet = network, own
		}
	}
	return r.reporter.subnetFile.Put(env)
}

// removeIfLost returns err. If the lease is lost, it first withdraws the container
// engine's configuration, and removes the kernel state that would keep forwarding for
// a subnet that another host has now.
func (r *runner) removeIfLost(ctx context.Context, m *membership, err error) error {
	if errors.Is(err, subnet.ErrLost) {
		err = errors.Join(err, r.reporter.cniConf.Withdraw())
		for _, f := range m.config.Families() {
			network := m.config.RangeOf(f).Network
			err = errors.Join(err, r.remove(ctx, m.config.BackendType, network), r.unblackhole(network))
		}
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

// watchUplinks returns a task that ends with *uplinkChangedError when an uplink is
// another one or has another address or MTU, or when one that is missing appears. It
// ends with nil when ctx ends.
func (r *runner) watchUplinks(m *membership) task {
	now := r.state.get()
	var tasks []task
	for _, f := range all.Outside(m.config.BackendType, m.config.Backend, m.config.Families()) {
		choice, current := r.options.iface.Of(f), now.sides[f].uplink
		tasks = append(tasks, func(ctx context.Context) error {
			var next uplink.Uplink
			var err error
			if current.Index == 0 {
				next, err = r.appear(ctx, choice)
			} else {
				next, err = r.follow(ctx, choice, current, func(problem error) { r.noteUplink(f, problem) })
			}
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil && current.Index == 0: // it can never appear
				<-ctx.Done()
				return nil
			case err != nil:
				return err
			}
			return &uplinkChangedError{next}
		})
	}
	return func(ctx context.Context) error { return runTogether(ctx, tasks...) }
}

// noteUplink notes why the uplink of a family cannot be used at present; nil if it
// can.
func (r *runner) noteUplink(f inet.Family, problem error) {
	r.state.update(func(s *progress) {
		s.sides[f].problem = ""
		if problem != nil {
			s.sides[f].problem = problem.Error()
		}
	})
}

// checkRoutes checks until ctx ends that no other program's route takes the packets of a
// family for peers or for our subnet.
func (r *runner) checkRoutes(ctx context.Context, m *membership, f inet.Family) error {
	if m.config.BackendType == "alloc" { // it has no routes
		return nil
	}
	c, err := r.check(m.config.RangeOf(f).Network, m.lease.SubnetOf(f), func() []netip.Prefix { return r.peers.subnets(f) })
	if err != nil {
		return err
	}
	r.state.update(func(s *progress) { s.routes[f] = c })
	err = c.Run(ctx)
	r.state.update(func(s *progress) { s.routes[f] = nil })
	return errors.Join(err, c.Close())
}

// keepBlackhole keeps the route of -ip-blackhole-route until ctx ends. Without the flag
// it removes that of an earlier run.
func (r *runner) keepBlackhole(ctx context.Context, m *membership, f inet.Family) error {
	network := m.config.RangeOf(f).Network
	if !r.options.blackhole {
		return r.unblackhole(network)
	}
	return r.blackhole(ctx, network, m.lease.SubnetOf(f))
}

// probe probes the peers of a family until ctx ends.
func (r *runner) probe(ctx context.Context, m *membership, network backend.Network, f inet.Family) error {
	if r.options.probeInterval == 0 || !all.CarriesPackets(m.config.BackendType) {
		return nil
	}
	p := probe.New(probe.Config{
		Subnet: m.lease.SubnetOf(f), MTU: network.MTU(), Interval: r.options.probeInterval,
		Peers: func() []netip.Prefix { return r.peers.subnets(f) },
		Changed: func(peer netip.Prefix, silent bool) {
			if r.peers.has(peer) { // observer reports a peer that left as such
				r.observer.peerSilent(peer, silent)
			}
		},
	})
	r.state.update(func(s *progress) { s.probers[f] = p })
	err := p.Run(ctx)
	if err != nil {
		r.state.update(func(s *progress) { s.probers[f] = nil })
	}
	return err
}

// probeOffloads probes the offloads on the paths to the peers until ctx ends.
func (r *runner) probeOffloads(ctx context.Context, m *membership, network backend.Network) error {
	probes := r.options.probesOffloads(m.config)
	if !probes || !r.options.offloadRepair {
		endOffloadRepair(r.options.stateDir)
	}
	if !probes {
		return nil
	}
	now := r.state.get()
	o, err := newOffloads(r.options, now.uplinks(), network.Encapsulation, offloadprobe.Config{
		Locals: offloadAddrs(m.config, &m.lease, now.inside(m.config)), MTU: network.MTU(), Interval: r.options.offloadInterval,
		Peers: listPeers(r.peers, func(leases []*subnet.Lease) (peers []offloadprobe.Peer) {
			for _, l := range leases {
				peers = append(peers, offloadPeers(m.config, l)...)
			}
			return peers
		}),
		Reaches: func(peer netip.Prefix) int {
			if pings := r.state.get().probers[inet.Of(peer.Addr())]; pings != nil {
				return pings.MTU(peer)
			}
			return 0
		},
		Changed: func(c offloadprobe.Change) {
			if r.peers.has(c.Peer) {
				r.observer.offloadChanged(c)
			}
		},
	})
	if err != nil {
		return err
	}
	defer o.close()
	r.state.update(func(s *progress) { s.offloads = o })
	err = o.Run(ctx)
	r.state.update(func(s *progress) { s.offloads = nil })
	return err
}
