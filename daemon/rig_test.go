package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/hostroute"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
	"github.com/coreos/flannel/subnet/subnettest"
)

const (
	rigConfig = `{"Network": "10.5.0.0/16", "Backend": {"Type": "alloc"}}`
	rigTTL    = 2 * time.Minute
)

// rig is the parts of a daemon with a store in memory, networks that carry
// nothing, and an uplink that tests change. It is made in a synctest bubble.
type rig struct {
	*testing.T
	options     *Options
	state       *state
	events      *status.EventLog
	reporter    *reporter
	observer    *observer
	peers       *peers
	checkpoints *checkpointFile
	joiner      *joiner
	opened      atomic.Int32 // connections to the store
	runner      *runner

	store    *subnettest.Fake
	uplinks  chan uplink.Uplink // what the host changes to
	networks chan *fakeNetwork  // those that were set up

	mu       sync.Mutex                    // guards what follows
	host     []hostroute.Network           // the host's own networks
	others   map[inet.Family]uplink.Uplink // the uplinks that can be found
	refuseV6 error                         // what the backend's constructor returns for IPv6
	refuse   error                         // what the backend's constructor returns
	upErr    error                         // what Up returns
	ups      int                           // calls of Up
	upMeets  []string                      // what is missing for readiness at the last one
	messages []string                      // to systemd
	removed  []string                      // backend and network that were removed from the kernel
}

// newRig returns a rig at 192.0.2.10, with a store that has a configuration.
func newRig(t *testing.T) *rig {
	t.Helper()
	fake := subnettest.NewFake()
	if _, err := fake.PublishConfig(t.Context(), []byte(rigConfig)); err != nil {
		t.Fatal(err)
	}
	return newRigAt(t, fake, "192.0.2.10")
}

// newRigAt returns a rig at an address, with a store that other rigs use, too.
func newRigAt(t *testing.T, fake *subnettest.Fake, addr string) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{T: t, state: new(state), events: new(status.EventLog), store: fake,
		uplinks: make(chan uplink.Uplink), networks: make(chan *fakeNetwork, 100),
		options: parse(t, "-state-dir="+dir+"/state", "-subnet-file="+dir+"/subnet.env", "-etcd-api=3", "-probe-interval=0"),
	}
	began := time.Now()
	r.options.leaseTTL = rigTTL
	r.options.renewal = subnet.Timing{RenewMargin: rigTTL / 2, Clock: func() time.Duration { return time.Since(began) }}
	reconciles := status.NewReconciles()
	r.reporter = newReporter(r.options, r.state, r.events)
	r.observer = newObserver(r.reporter, r.events)
	r.peers = newPeers(r.observer)
	r.checkpoints = newCheckpointFile(r.options)
	r.joiner = newJoiner(r.options, r.state, r.checkpoints, r.peers, reconciles)
	r.joiner.openStore = func(_ context.Context, c store.Config) (store.Store, error) {
		r.opened.Add(1)
		s := store.New(openedStore{fake}, c.API)
		s.Opened = c
		return s, nil
	}
	r.joiner.newBackend = func(config *subnet.Config) (backend.Backend, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		now := r.state.get()
		if r.refuseV6 != nil && slices.Contains(now.inside(config), inet.IPv6) {
			return nil, r.refuseV6
		}
		return &fakeBackend{r, now.host()}, r.refuse
	}
	r.joiner.underlay.succeed = func(_ uplink.Choice, u uplink.Uplink) (uplink.Uplink, error) { return u, nil }
	r.joiner.underlay.find = func(c uplink.Choice) (uplink.Uplink, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if up, ok := r.others[c.Family]; ok {
			return up, nil
		}
		return uplink.Uplink{}, errUnusable
	}
	r.joiner.underlay.wait = func(ctx context.Context, c uplink.Choice) (uplink.Uplink, error) {
		for {
			if up, err := r.joiner.underlay.find(c); err == nil {
				return up, nil
			}
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return uplink.Uplink{}, fmt.Errorf("%w (%w)", ctx.Err(), errUnusable)
			}
		}
	}
	r.joiner.readHost = func(netip.Prefix) ([]hostroute.Network, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.host, nil
	}
	r.runner = newRunner(r.options, r.state, r.joiner, r.observer, r.reporter, reconciles)
	r.runner.follow = func(ctx context.Context, _ uplink.Choice, _ uplink.Uplink, _ func(error)) (uplink.Uplink, error) {
		select {
		case to := <-r.uplinks:
			return to, nil
		case <-ctx.Done():
			return uplink.Uplink{}, ctx.Err()
		}
	}
	r.runner.appear = r.joiner.underlay.wait
	r.runner.notify = func(message string) { r.note(&r.messages, message) }
	r.runner.blackhole = func(ctx context.Context, _, own netip.Prefix) error {
		r.note(&r.removed, "blackhole "+own.String()) // not removed, but kept
		<-ctx.Done()
		return nil
	}
	r.runner.unblackhole = func(netip.Prefix) error { return nil }
	r.runner.remove = func(_ context.Context, backendType string, network netip.Prefix) error {
		r.note(&r.removed, backendType+" "+network.String())
		return nil
	}
	r.joiner.underlay.set(uplink.Uplink{Index: 2, Name: "eth0", MTU: 1500, Addr: netip.MustParseAddr(addr)})
	return r
}

func (r *rig) note(list *[]string, s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	*list = append(*list, s)
}

func (r *rig) noted(list *[]string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(*list)
}

// fail sets what the backend's constructor and Up return from now on.
func (r *rig) fail(refuse, up error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refuse, r.upErr = refuse, up
}

func (r *rig) join() *membership {
	r.Helper()
	m, err := r.joiner.join(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return m
}

// supervise runs a supervisor until the test ends or the result's stop is called.
func (r *rig) supervise(m *membership) *supervised {
	r.Helper()
	ctx, cancel := context.WithCancel(r.Context())
	s := &supervised{stop: cancel, ended: make(chan error, 1)}
	go func() {
		s.ended <- (&supervisor{r.state, r.joiner, r.runner, m, func(context.Context, *membership) error { return nil }}).Run(ctx)
	}()
	r.Cleanup(cancel)
	synctest.Wait()
	return s
}

type supervised struct {
	stop  context.CancelFunc
	ended chan error
}

// end ends the supervisor, which must not have failed.
func (s *supervised) end(t *testing.T) {
	t.Helper()
	s.stop()
	if err := <-s.ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}

// network returns the network that was set up since the last call; nil: none.
func (r *rig) network() *fakeNetwork {
	r.Helper()
	synctest.Wait()
	select {
	case n := <-r.networks:
		if len(r.networks) > 0 {
			r.Errorf("%d networks more", len(r.networks))
		}
		return n
	default:
		return nil
	}
}

// stored returns the store's lease of p; zero without one.
func (r *rig) stored(p netip.Prefix) subnet.Lease {
	r.Helper()
	leases, _, err := r.store.List(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	for _, l := range leases {
		if l.Subnet == p {
			return l
		}
	}
	return subnet.Lease{}
}

// addPeer adds the lease of a peer to the store.
func (r *rig) addPeer(p netip.Prefix, addr string) {
	r.Helper()
	l := subnet.Lease{Subnet: p, Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(addr), BackendType: "alloc"}}
	if _, err := r.store.Create(r.Context(), l, 24*time.Hour); err != nil {
		r.Fatal(err)
	}
}

// openedStore is a Fake that other connections go on using after Close.
type openedStore struct{ *subnettest.Fake }

func (openedStore) Close() error { return nil }

// fakeBackend sets up networks of a rig.
type fakeBackend struct {
	rig  *rig
	host subnet.Attrs
}

func (b *fakeBackend) Attrs() subnet.Attrs {
	b.host.BackendType = "alloc"
	return b.host
}

func (b *fakeBackend) Up(ctx context.Context, l subnet.Lease) (backend.Network, error) {
	return b.UpWith(ctx, l, nil)
}

func (b *fakeBackend) UpWith(_ context.Context, l subnet.Lease, kept io.Closer) (backend.Network, error) {
	missing := b.rig.reporter.full().NotReady
	b.rig.mu.Lock()
	defer b.rig.mu.Unlock()
	b.rig.ups++
	b.rig.upMeets = missing
	if err := b.rig.upErr; err != nil {
		if kept != nil {
			err = errors.Join(err, kept.Close())
		}
		return nil, err
	}
	n := &fakeNetwork{lease: l, kept: kept, breaks: make(chan error, 1), peers: make(map[netip.Prefix]bool), applied: make(chan struct{})}
	b.rig.networks <- n
	return n, nil
}

// fakeNetwork carries nothing.
type fakeNetwork struct {
	lease  subnet.Lease
	kept   io.Closer  // of the network before
	breaks chan error // what Run returns

	mu      sync.Mutex // guards what follows
	peers   map[netip.Prefix]bool
	applied chan struct{} // closed by the first Apply
	closed  bool
	closing error // what Close returns
	// discarded: what it has left is closed.
	discarded bool
}

func (n *fakeNetwork) MTU() int { return 1472 }

func (n *fakeNetwork) Apply(events []subnet.Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, e := range events {
		n.peers[e.Subnet()] = e.Type == subnet.Added
	}
	select {
	case <-n.applied:
	default:
		close(n.applied)
	}
}

func (n *fakeNetwork) Run(ctx context.Context) error {
	select {
	case err := <-n.breaks:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (n *fakeNetwork) Stats() backend.Stats { return backend.Stats{DataPath: "fake"} }
func (n *fakeNetwork) DataPath() string     { return "fake" }
func (n *fakeNetwork) Check() error         { return nil }

func (n *fakeNetwork) Encapsulation() backend.Encapsulation { return backend.Unencapsulated }

func (n *fakeNetwork) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return errors.New("closed twice")
	}
	n.closed = true
	return n.closing
}

func (n *fakeNetwork) Leave() (io.Closer, error) { return fakeKept{n}, n.Close() }

// fakeKept is what a network has left.
type fakeKept struct{ by *fakeNetwork }

func (k fakeKept) Close() error {
	k.by.mu.Lock()
	defer k.by.mu.Unlock()
	k.by.discarded = true
	return nil
}

func (n *fakeNetwork) isDiscarded() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.discarded
}

func (n *fakeNetwork) failClose(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closing = err
}

func (n *fakeNetwork) isClosed() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.closed
}

func (n *fakeNetwork) has(p netip.Prefix) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.peers[p]
}
