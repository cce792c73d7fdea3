// Package daemon is the run of the daemon: it joins the network, keeps the lease
// and carries packets until its context ends.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/masq"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/pkg/turn"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/embed"
	"github.com/coreos/flannel/subnet/store"
)

// daemon is one run of the program, and what the status report may read while
// it goes on.
// Daemon is one run of the program.
type Daemon = daemon

type daemon struct {
	version string
	options *Options
	began   time.Time
	events  status.EventLog
	// rekeying is held while the key is replaced: one after the other.
	rekeying sync.Mutex
	checks   checker
	// reconciles counts for the metrics.
	reconciles *status.Reconciles
	// reports is held by those who read a report's parts; what they read is
	// closed by whoever has it alone.
	reports sync.RWMutex
	// etcd is the embedded one; nil without -etcd-embed.
	etcd *embed.Server
	// turnout is which peers have joined (true) and left.
	turnout turn.Notes

	mu      sync.Mutex // guards what follows
	running running
}

// running is what a start has achieved so far; what it has not is zero.
type running struct {
	uplink   uplink.Uplink
	publicIP netip.Addr
	config   *subnet.Config
	store    store.Store
	manager  *subnet.Manager
	network  backend.Network
	applied  bool // network has had its first full set of peers
	prober   *probe.Prober
	ready    bool // and was so at least once
	// uplinkProblem says why the uplink cannot be used at present, "" if it can.
	uplinkProblem string
}

// New returns a Daemon that does not run yet.
func New(o *Options, version string) *daemon {
	return &daemon{version: version, options: o, began: time.Now(), reconciles: status.NewReconciles()}
}

func (d *daemon) update(f func(*running)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(&d.running)
}

func (d *daemon) snapshot() running {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}

// WasReady reports whether the daemon has been ready at least once.
func (d *daemon) WasReady() bool { return d.snapshot().ready }

// Run does everything until ctx ends (nil, or ctx's error) or something fails.
func (d *daemon) Run(ctx context.Context) error {
	d.options.TuneGC()
	log.Infof("start flannel version=%s", d.version)
	if err := d.plantEtcd(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.attendSystemd(ctx) })
	g.Go(func() error { return d.serveStatus(ctx) })
	g.Go(func() error { return d.serveControl(ctx) })
	g.Go(func() error { return d.observe(ctx) })
	g.Go(func() error { return d.serve(ctx) })
	return g.Wait()
}

// plantEtcd makes the embedded etcd, if there shall be one, the store to use.
// It does not run yet.
func (d *daemon) plantEtcd() (err error) {
	if !d.options.embed {
		return nil
	}
	d.etcd, err = embed.New(embed.Config{
		Dir:    filepath.Join(d.options.stateDir, "etcd"),
		Listen: d.options.embedListen,
	})
	if err != nil {
		return err
	}
	d.options.store.Endpoints = []string{d.etcd.Endpoint()}
	d.options.store.API = store.API3
	return nil
}

// serve waits for an uplink, and has the embedded etcd, if there is one, run
// beside the network from then on: it may listen at an address that comes with
// the uplink.
func (d *daemon) serve(ctx context.Context) error {
	up, err := uplink.Wait(ctx, d.options.iface)
	if err != nil {
		return err
	}
	publicIP := d.chosen(up)
	if d.etcd == nil {
		return d.participate(ctx, up, publicIP)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.etcd.Run(ctx) })
	g.Go(func() error {
		select {
		case <-d.etcd.Ready():
			return d.participate(ctx, up, publicIP)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	return g.Wait()
}

// participate gets a lease, and keeps it and a network for it at work.
func (d *daemon) participate(ctx context.Context, up uplink.Uplink, publicIP netip.Addr) error {
	j, err := d.join(ctx, up, publicIP)
	if err != nil {
		return err
	}
	defer func() { j.close() }() // of the store that it has by then
	if err := d.removeOthers(ctx, j); err != nil {
		return err
	}
	return d.keep(ctx, &j)
}

// chosen takes note of an uplink, and returns the address that other hosts send
// to by it.
func (d *daemon) chosen(up uplink.Uplink) netip.Addr {
	publicIP := d.options.publicIP
	if !publicIP.IsValid() {
		publicIP = up.Addr
	}
	log.Infof("chose interface iface=%s addr=%v mtu=%d public_ip=%v reason=%q", up.Name, up.Addr, up.MTU, publicIP, up.Reason)
	d.update(func(r *running) { r.uplink, r.publicIP, r.uplinkProblem = up, publicIP, "" })
	return publicIP
}

// keep holds what is the same by every uplink, firewall rules and memory, and
// carries packets until that fails or ctx ends.
func (d *daemon) keep(ctx context.Context, j *joined) error {
	rules := masq.Rules{Network: j.config.Network, Subnet: j.lease.Subnet, Masquerade: true}
	if d.options.ipMasq { // before anybody is told that all is ready
		if err := masq.Apply(rules); err != nil {
			return err
		}
	}
	r := d.newRecorder(*j)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.masquerade(ctx, rules) })
	g.Go(func() error { return r.run(ctx) })
	g.Go(func() error { return d.lean(ctx) })
	g.Go(func() error { return d.follow(ctx, j, r) })
	err := g.Wait()
	if errors.Is(err, subnet.ErrLost) {
		return errors.Join(err, d.forget())
	}
	return err
}

// carry makes the network for the lease by the uplink as it is, writes
// subnet.env, and runs lease and network until one of them fails or ctx ends. A
// *movedError says that the uplink is another one.
func (d *daemon) carry(ctx context.Context, j joined, rec *recorder) error {
	network, err := j.backend.Up(ctx, j.lease)
	if err != nil {
		return &unmadeError{fmt.Errorf("set up backend %s for %v: %w", j.config.BackendType, j.lease.Subnet, err)}
	}
	d.update(func(r *running) { r.network, r.applied, r.uplinkProblem = network, false, "" })
	err = d.exchange(ctx, j, network, rec)
	d.reports.Lock() // nobody looks at the network any more
	d.update(func(r *running) { r.network = nil })
	d.reports.Unlock()
	return d.withdraw(ctx, j, errors.Join(err, network.Close()))
}

// withdraw passes err on. Where it is that the lease is lost, it first takes away
// what would go on by itself in the kernel, with a subnet that is another's.
func (d *daemon) withdraw(ctx context.Context, j joined, err error) error {
	if errors.Is(err, subnet.ErrLost) {
		err = errors.Join(err, all.Remove(ctx, j.config.BackendType, j.config.Network))
	}
	return err
}

// exchange is carry with the network made.
func (d *daemon) exchange(ctx context.Context, j joined, network backend.Network, rec *recorder) error {
	config, lease := j.config, j.lease
	err := subnetfile.Write(d.options.subnetFile, subnetfile.Env{
		Network: config.Network, Subnet: lease.Subnet, MTU: network.MTU(), IPMasq: d.options.ipMasq,
	})
	if err != nil {
		return err
	}
	if a, ok := network.(backend.Announcer); ok {
		a.Announce(j.manager.Publish)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return network.Run(ctx) })
	g.Go(func() error { return d.probe(ctx, j, network, rec) })
	g.Go(func() error { return j.manager.Renew(ctx, lease) })
	g.Go(func() error { return j.manager.WatchConfig(ctx) })
	g.Go(func() error { return d.watchUplink(ctx) })
	g.Go(func() error {
		return j.manager.Watch(ctx, lease, func(events []subnet.Event) {
			began := time.Now()
			network.Apply(events)
			d.reconciles.Store(time.Since(began))
			rec.note(events)
			d.sayReady(config, lease, network)
		})
	})
	return g.Wait()
}

// masquerade keeps the firewall rules until ctx ends, and leaves none behind.
func (d *daemon) masquerade(ctx context.Context, rules masq.Rules) error {
	if d.options.ipMasq {
		return errors.Join(masq.Run(ctx, rules), masq.Remove(rules.Network))
	}
	// A run that was killed may have left some.
	if err := masq.Remove(rules.Network); err != nil {
		log.V(1).Infof("look for old firewall rules: %v", err) // no nftables, no rules
	}
	<-ctx.Done()
	return nil
}

// sayReady tells systemd and the log, at the first call, that the network is
// complete: subnet.env is there and the first full set of peers is applied.
func (d *daemon) sayReady(config *subnet.Config, lease subnet.Lease, network backend.Network) {
	first := false
	d.update(func(r *running) { first, r.ready, r.applied = !r.ready, true, true })
	if !first {
		return
	}
	log.Info(d.summary(config, lease, network))
	notifySystemd(sd.SdNotifyReady)
}
