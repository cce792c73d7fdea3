package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// storeTimeout is how long a start waits for the configuration, and then for the
// lease, before it uses the checkpoint: the time limit of one round trip.
const storeTimeout = 5 * time.Second

// errNoConfiguration: the store has not given a configuration within storeTimeout.
var errNoConfiguration = errors.New("no configuration within " + storeTimeout.String())

// networkSetupError is why there is no network for the uplink as it is.
type networkSetupError struct{ error }

func (e *networkSetupError) Unwrap() error { return e.error }

// joiner gets a lease in the network.
type joiner struct {
	options     *Options
	state       *state
	checkpoints *checkpointFile
	peers       *peers
	identity    *identity
	underlay    *underlay
	last        *lastRun // what awaitUplink has read for join; nil otherwise

	openStore  func(context.Context, store.Config) (store.Store, error)
	newBackend func(*subnet.Config) (backend.Backend, error) // for the uplinks and families in state
	readHost   func(within netip.Prefix) ([]hostroute.Network, error)
}

func newJoiner(o *Options, s *state, c *checkpointFile, p *peers, reconciles *status.Reconciles) *joiner {
	return &joiner{options: o, state: s, checkpoints: c, peers: p, identity: &identity{dir: o.stateDir}, underlay: newUnderlay(o, s),
		openStore: store.Open, readHost: hostroute.Networks,
		newBackend: func(config *subnet.Config) (backend.Backend, error) {
			return newBackend(o, config, s.get(), reconciles.Kernel)
		}}
}

// awaitUplink waits for an interface to the other hosts. Without IPv6 in the network
// of the last run, IPv6 does not count: the checkpoint is of use by IPv4 only.
func (j *joiner) awaitUplink(ctx context.Context) error {
	j.last = new(readLastRun(j.options, j.checkpoints))
	c := j.last.checkpoint
	return j.underlay.awaitFirst(ctx, c != nil && slices.Equal(c.Config.Families(), []inet.Family{inet.IPv4}))
}

// join gets a lease from the store, and waits for the store without limit. If the
// last run's lease has not ended, each wait is limited to storeTimeout. After that
// join uses the lease, peers and configuration of the checkpoint. It does the same
// if the store has no configuration, as after a loss of its data: running hosts go
// on with theirs, too. The caller closes the result.
func (j *joiner) join(ctx context.Context) (*membership, error) {
	if j.last == nil {
		j.last = new(readLastRun(j.options, j.checkpoints))
	}
	last := *j.last
	j.last = nil
	remaining := last.checkpoint.remaining(j.state.get().host(), clock.Now())
	if remaining <= 0 {
		return j.joinFromStore(ctx, last, 0)
	}
	m, err := j.joinFromStore(ctx, last, storeTimeout)
	if !errors.Is(err, subnet.ErrStoreTimeout) && !errors.Is(err, errNoConfiguration) { // promise: checkpoint-if-store-is-silent
		return m, err
	}
	reason := err
	if m, err = j.joinFromCheckpoint(ctx, last, remaining); err != nil {
		return nil, fmt.Errorf("use the checkpoint of the last run, because of %q: %w", reason, err)
	}
	log.Warningf("use the checkpoint of the last run subnet=%s peers=%d expires=%s reason=%q",
		m.lease.Subnets(), len(last.checkpoint.Peers), m.lease.Expiry(), reason)
	return m, nil
}

// joinFromStore gets the configuration and a lease from the store. Without the one
// or the other within timeout, the error is errNoConfiguration or
// subnet.ErrStoreTimeout; 0: no limit.
func (j *joiner) joinFromStore(ctx context.Context, last lastRun, timeout time.Duration) (_ *membership, err error) {
	opening := ctx
	if timeout > 0 {
		limited, cancel := context.WithTimeoutCause(ctx, timeout, errNoConfiguration)
		defer cancel()
		opening = limited
	}
	if err := j.checkPublish(); err != nil {
		return nil, err
	}
	c := j.options.store.Config()
	c.Publish = j.options.networkJSON
	opened, err := j.open(opening, c)
	if err != nil {
		return nil, err
	}
	m := &membership{store: opened}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	m.config, err = subnet.WaitConfig(opening, m.store, func(err error) {
		j.state.update(func(s *progress) { s.configError = err })
	})
	if err != nil {
		return nil, fmt.Errorf("use network configuration %s: %w", c.ConfigName(), err)
	}
	j.warnIfIgnored(m.config)
	m.formerNetworks = last.networks(m.config)
	if err = j.acquire(ctx, m, last, timeout); errors.Is(err, subnet.ErrCloned) {
		log.Warningf("this host's disk is a copy of another's, take a new identity node_id=%v reason=%q", j.identity.replace(), err)
		err = j.acquire(ctx, m, last, timeout) // with a new backend: its keys may come from the identity
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

// joinFromCheckpoint joins without an answer of the store, with a lease that ends
// after remaining.
func (j *joiner) joinFromCheckpoint(ctx context.Context, last lastRun, remaining time.Duration) (*membership, error) {
	opened, err := j.open(ctx, j.options.store.Config().Remembered(last.checkpoint.API, last.checkpoint.storePrefix()))
	if err != nil {
		return nil, err
	}
	m := &membership{store: opened, config: &last.checkpoint.Config}
	m.formerNetworks = last.networks(m.config)
	m.lease = last.checkpoint.Lease
	if err := j.prepareFor(ctx, m); err != nil {
		m.close()
		return nil, err
	}
	j.publishState(m)
	if _, ends := m.lease.Ends(); ends {
		m.lease.Expiration = time.Now().Add(remaining)
	}
	m.lease.Attrs = j.attrs(m)
	m.manager.Adopt(m.lease, last.checkpoint.Lease.Attrs.HostAddr()) // the Node may have another address in place of ours
	m.manager.AdoptPeers(last.checkpoint.Peers)
	return m, nil
}

// prepareFor prepares m for the lease that it has: without the families that the
// lease has no part of.
func (j *joiner) prepareFor(ctx context.Context, m *membership) error {
	if err := j.settle(ctx, m, secondPatience); err != nil {
		return err
	}
	j.leaveMissingOut(m, "the lease of the last run has no subnet of it")
	return j.makeBackend(m)
}

// leaveMissingOut leaves out the families of which m's lease has no part.
func (j *joiner) leaveMissingOut(m *membership, reason string) {
	for _, f := range j.state.get().inside(m.config) {
		if !m.lease.SubnetOf(f).IsValid() {
			j.state.update(func(s *progress) { s.without[f] = reason })
			m.lacking++
		}
	}
}

// open opens the store and shows it to the other parts.
func (j *joiner) open(ctx context.Context, c store.Config) (store.Store, error) {
	opened, err := j.openStore(ctx, c)
	if err == nil {
		j.state.update(func(s *progress) { s.store = opened })
	}
	return opened, err
}

// prepare decides which families this host carries, and fills in the manager and the
// backend for the configuration.
func (j *joiner) prepare(ctx context.Context, m *membership, patience time.Duration) error {
	if err := j.settle(ctx, m, patience); err != nil {
		return err
	}
	return j.makeBackend(m)
}

// settle decides which families this host carries, and gives m a manager for its
// store.
func (j *joiner) settle(ctx context.Context, m *membership, patience time.Duration) error {
	if err := j.underlay.settle(ctx, m.config, m.store.API, patience); err != nil {
		return err
	}
	m.manager = m.store.NewManager(m.config, j.options.leaseTTL, j.options.renewal)
	return nil
}

// makeBackend makes m's backend. If a backend for both families is refused, it makes
// one for IPv4 alone: no fault of IPv6 ends IPv4.
func (j *joiner) makeBackend(m *membership) (err error) {
	m.backend, err = j.newBackend(m.config)
	return j.underlay.withoutIPv6(m.config, err, func() (err error) {
		m.backend, err = j.newBackend(m.config)
		return err
	})
}

// publishState shows configuration and manager to the other parts.
func (j *joiner) publishState(m *membership) {
	j.state.update(func(s *progress) { s.config, s.manager = m.config, m.manager })
}

// acquire prepares m and gets its lease from the store.
func (j *joiner) acquire(ctx context.Context, m *membership, last lastRun, timeout time.Duration) error {
	err := j.prepare(ctx, m, secondPatience)
	j.publishState(m)
	if err != nil {
		return err
	}
	return j.takeLease(ctx, m, last, timeout)
}

// takeLease gets m's lease from the store. It has a part of each family that this
// host carries: IPv6 is left out if no subnet of it is free.
func (j *joiner) takeLease(ctx context.Context, m *membership, last lastRun, timeout time.Duration) error {
	// A start that the host's own networks refuse must leave no lease behind.
	hints, err := j.hints(m.config, last)
	err = j.underlay.withoutIPv6(m.config, err, func() (err error) {
		if err = j.makeBackend(m); err == nil {
			hints, err = j.hints(m.config, last)
		}
		return err
	})
	if err != nil {
		return err
	}
	hints.StoreTimeout = timeout
	lease, err := m.manager.Acquire(ctx, j.attrs(m), hints)
	if err != nil {
		return err
	}
	m.lease = lease
	if slices.Contains(j.state.get().inside(m.config), inet.IPv6) && !lease.IPv6Subnet.IsValid() {
		j.underlay.leaveIPv6Out(m.config, errNoIPv6Subnet)
		m.lacking++
		if err := j.makeBackend(m); err != nil {
			return err
		}
		m.lease.Attrs = j.attrs(m) // the first renewal writes them
	} else {
		m.lacking = 0
	}
	return nil
}

// attrs returns the attributes of our lease: the backend's, and those of this host.
func (j *joiner) attrs(m *membership) subnet.Attrs {
	a := j.identity.of(m.backend.Attrs())
	if j.options.probesOffloads(m.config) {
		a.OffloadPort = uint16(j.options.offloadPort)
	}
	return a
}

// errNoIPv6Subnet is why a host of a network of both families has no IPv6 subnet.
var errNoIPv6Subnet = errors.New("no IPv6 subnet is free; release those of hosts that do not come back (flannel release), or hand out more (IPv6SubnetMin, IPv6SubnetMax); flannel tries again after some minutes")

// hints describes which subnets this host can use beside its own networks. It
// returns an error if it can use none of a family.
func (j *joiner) hints(config *subnet.Config, last lastRun) (subnet.Hints, error) {
	now := j.state.get()
	h := subnet.Hints{Previous: last.subnet(inet.IPv4), PreviousIPv6: last.subnet(inet.IPv6), Without: now.left(),
		Remembered: last.checkpoint.subnets(), Unusable: make(map[netip.Prefix]string)}
	for _, f := range now.inside(config) {
		r := config.RangeOf(f)
		have, err := j.readHost(r.Network)
		if err != nil {
			log.Warningf("choose a subnet without regard to the networks of this host: %v", err)
		}
		if err := all.CheckHost(config.BackendType, r.Network, have); err != nil {
			return subnet.Hints{}, err
		}
		s := now.sides[f]
		never, final := hostroute.Unusable(have, r.Network, r.SubnetLen, s.uplink.Name)
		for _, n := range never {
			h.Unusable[n.Prefix] = cmp.Or(n.Dev, "a route")
		}
		for _, n := range final {
			h.Remembered = append(h.Remembered, n.Prefix)
		}
		for _, a := range []netip.Addr{s.uplink.Addr, s.publicIP} {
			if r.Network.Contains(a) {
				h.Unusable[netip.PrefixFrom(a, a.BitLen())] = s.uplink.Name
			}
			for _, previous := range []*netip.Prefix{&h.Previous, &h.PreviousIPv6} {
				if previous.Contains(a) {
					*previous = netip.Prefix{}
				}
			}
		}
	}
	return h, nil
}

// checkPublish refuses a -network that this host cannot use: once published, it
// would hold for all hosts, and no host would overwrite it.
func (j *joiner) checkPublish() error {
	if j.options.networkConfig == nil {
		return nil
	}
	_, err := j.newBackend(j.options.networkConfig)
	if err == nil {
		_, err = j.hints(j.options.networkConfig, lastRun{})
	}
	if err != nil {
		return fmt.Errorf("-network: %w", err)
	}
	return nil
}

// warnIfIgnored logs a warning if the stored configuration differs from -network:
// the store's holds, for all hosts.
func (j *joiner) warnIfIgnored(stored *subnet.Config) {
	ours := j.options.networkConfig
	if ours == nil {
		return
	}
	// Of the backend only the type is compared.
	if slices.ContainsFunc(ours.Diff(stored), func(d subnet.ConfigDifference) bool { return d.Key != "Backend" }) {
		log.Warningf("ignore -network network=%s backend=%s reason=%q stored_network=%s stored_backend=%s hint=%q",
			ours.Networks(), ours.BackendType, "the store has another configuration, which holds for all hosts",
			stored.Networks(), stored.BackendType, "flannel config set changes it")
	}
}
