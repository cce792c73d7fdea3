// Package daemon runs the daemon: it joins the network, keeps the lease, and
// carries packets until its context ends.
//
//	Daemon ─┬► supervisor ─┬► runner ─► backend.Network
//	        │              │     └────► peers ─► observer ─► log, events
//	        │              └► joiner ─► membership: store, configuration, lease
//	        ├► checkpointWriter ─► peers, lease
//	        └► reporter ─► state: status page, systemd, log line "ready"
//
// A file uses only what the files below it declare; layout_test.go has the order.
package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/embed"
)

// Daemon is one run of the program.
type Daemon struct {
	options *Options
	version string
	began   time.Time
	state   *state
	// lostLines counts the lines of the log that its reader has not got.
	lostLines func() uint64
}

// New returns a Daemon that does not run yet. The log and the status page report
// version. lostLines returns how many lines of the log are lost.
func New(o *Options, version string, lostLines func() uint64) *Daemon {
	return &Daemon{options: o, version: version, began: time.Now(), state: new(state), lostLines: lostLines}
}

// WasReady reports whether the daemon has been ready at least once: subnet.env
// was written, and the first full set of peers was applied.
func (d *Daemon) WasReady() bool { return d.state.wasReady() }

// Run runs the daemon until ctx ends (nil, or ctx's error) or a part fails (the
// error). Call it once.
func (d *Daemon) Run(ctx context.Context) error {
	o := d.options
	setStartGC(o.embed)
	log.Infof("start flannel version=%s", d.version)
	etcd, err := newEmbeddedEtcd(o)
	if err != nil {
		return err
	}
	if etcd != nil {
		o.useStore(etcd.Endpoint())
	}
	reconciles, events := status.NewReconciles(), new(status.EventLog)
	reporter := newReporter(o, d.state, events)
	reporter.lostLines = d.lostLines
	withdrawStale(reporter.cniConf, o)
	changes := newObserver(reporter, events)
	peers := newPeers(changes)
	node := newNodeReporter(o, d.state, changes)
	checkpoints := newCheckpointFile(o)
	joiner := newJoiner(o, d.state, checkpoints, peers, reconciles)
	runner := newRunner(o, d.state, joiner, changes, reporter, reconciles)

	g, ctx := errgroup.WithContext(ctx)
	start := func(tasks ...task) {
		for _, t := range tasks {
			g.Go(func() error { return t(ctx) })
		}
	}
	start(newSystemd(reporter.statusLine, d.state.wasReady).Run, changes.Run, node.Run, newRekeyer(o, d.state).Run, reporter.subnetFile.Run, reporter.cniConf.Run)
	start(d.statusServers(reporter, reconciles)...)
	var m *membership
	firewall := newFirewall(o)
	g.Go(func() (err error) {
		chooseByNode(ctx, o)
		if err := joiner.awaitUplink(ctx); err != nil {
			return err
		}
		if etcd != nil { // it may listen on the uplink's address
			start(etcd.Run)
			if err := waitForEtcd(ctx, etcd); err != nil {
				return err
			}
		}
		if m, err = joiner.join(ctx); err != nil {
			return err
		}
		if err := removeLeftovers(ctx, m.config, m.formerNetworks); err != nil {
			return err
		}
		if err := firewall.apply(m.config, m.lease); err != nil { // before READY=1
			return err
		}
		start(firewall.Run, newCheckpointWriter(checkpoints, d.state, peers, m.store.Opened).Run,
			newTrimmer(o.embed, d.state.wasReady, m.config.BackendType).Run, (&supervisor{d.state, joiner, runner, m, func(ctx context.Context, m *membership) error {
				return errors.Join(removeNetworks(ctx, m.formerNetworks), firewall.apply(m.config, m.lease))
			}}).Run)
		return nil
	})
	err = g.Wait()
	if m == nil { // no lease
		return err
	}
	m.leave(err)
	err = errors.Join(err, firewall.finish()) // after the network is closed
	if errors.Is(err, subnet.ErrLost) {
		err = errors.Join(err, checkpoints.remove()) // after the writer's last write
	}
	return err
}

// newEmbeddedEtcd returns the embedded etcd, which does not run yet; nil without
// -etcd-embed.
func newEmbeddedEtcd(o *Options) (*embed.Server, error) {
	if !o.embed {
		return nil, nil
	}
	return embed.New(embed.Config{Dir: filepath.Join(o.stateDir, "etcd"), Listen: o.embedListen})
}

// waitForEtcd waits until etcd serves, or ctx ends (its cause).
func waitForEtcd(ctx context.Context, etcd *embed.Server) error {
	select {
	case <-etcd.Ready():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// statusServers returns the HTTP servers that the flags name.
func (d *Daemon) statusServers(r *reporter, reconciles *status.Reconciles) (servers []task) {
	o := d.options
	if o.statusAddr != "" {
		server := status.New(status.Config{
			Addr: o.statusAddr, Version: d.version, Began: d.began, Source: r.full, Reconciles: reconciles, Pprof: o.statusPprof,
		})
		servers = append(servers, (&statusServer{optional: !o.statusGiven, server: server}).Run)
	}
	if o.healthzPort != 0 {
		servers = append(servers, status.NewHealthz(net.JoinHostPort(o.healthzIP, strconv.Itoa(o.healthzPort)), r.full).Run)
	}
	return servers
}
