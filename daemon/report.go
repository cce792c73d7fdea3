package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
)

// serveStatus runs the HTTP servers that the flags ask for.
func (d *daemon) serveStatus(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if addr := d.options.statusAddr; addr != "" {
		s := status.New(status.Config{Addr: addr, Version: d.version, Began: d.began, Source: d.report, Reconciles: d.reconciles, Pprof: d.options.statusPprof})
		g.Go(func() error {
			err := s.Run(ctx)
			if errors.Is(err, unix.EADDRINUSE) && !d.options.statusGiven {
				log.Warningf("no status server: %v; a second daemon on this host needs -status-addr", err)
				return nil
			}
			return err
		})
	}
	if port := d.options.healthzPort; port != 0 {
		s := status.NewHealthz(net.JoinHostPort(d.options.healthzIP, strconv.Itoa(port)), d.report)
		g.Go(func() error { return s.Run(ctx) })
	}
	return g.Wait()
}

// report is the state of the daemon for the status servers. Its cost grows with
// the number of peers, so what goes on all the time asks for the outline.
func (d *daemon) report() status.Snapshot {
	d.reports.RLock()
	defer d.reports.RUnlock()
	r := d.snapshot()
	s, _ := d.describe(r, checkShare)
	for _, e := range d.events.Recent() {
		s.Events = append(s.Events, e)
	}
	if s.Lease != nil && r.network != nil {
		s.Backend = r.backend()
	}
	return s
}

// outline is the report without peers and events, whose cost grows with them.
type outline struct {
	status.Snapshot
	peers    int    // how many the control plane knows
	dataPath string // on one line; "" without a network
}

// outline is for those who ask all the time.
func (d *daemon) outline() outline {
	d.reports.RLock()
	defer d.reports.RUnlock()
	r := d.snapshot()
	var o outline
	if r.network != nil {
		o.dataPath = r.network.DataPath()
	}
	o.Snapshot, o.peers = d.describe(r, idleShare)
	return o
}

// describe is what report and outline both say of r, and the number of peers.
func (d *daemon) describe(r running, share time.Duration) (s status.Snapshot, peers int) {
	s.Node = status.Node{PublicIP: r.publicIP, Iface: r.uplink.Name, MTU: r.uplink.MTU}
	missing := func(format string, args ...any) {
		s.NotReady = append(s.NotReady, fmt.Sprintf(format, args...))
	}
	if r.uplink.Index == 0 {
		missing("waiting for an interface with an address")
		return s, peers
	}
	if r.uplinkProblem != "" {
		missing("the interface to the other hosts cannot be used: %s", r.uplinkProblem)
	}
	if r.store.Source == nil {
		missing("waiting for the store %v", d.options.store.Endpoints)
		return s, peers
	}
	s.BadLeaseData = r.store.BadCount()
	s.Store.API = r.store.API
	if r.manager == nil {
		missing("waiting for the network configuration %s/config", d.options.store.Prefix)
		return s, peers
	}
	s.BadLeaseData += r.manager.BadCount()
	control := r.manager.Status()
	peers, s.HeldPeers, s.ConfigRefused = control.Peers, control.Held, control.ConfigRefused
	s.Store.Reachable, s.Store.Since = control.StoreError == nil, control.Since
	l := control.Lease
	if !l.Subnet.IsValid() {
		missing("waiting for a subnet")
		return s, peers
	}
	s.Lease = &status.Lease{Subnet: l.Subnet, ExpiresAt: l.Expiration, Reserved: l.Reserved}
	if !l.Reserved && time.Now().After(l.Expiration) {
		missing("the lease of %v expired at %v and could not be renewed", l.Subnet, l.Expiration.UTC().Format(time.RFC3339))
	}
	if r.network == nil {
		missing("waiting for the network device")
		return s, peers
	}
	if !r.applied {
		missing("waiting for the first full set of peers")
		return s, peers
	}
	s.NotReady = append(s.NotReady, d.differences(r.network, share)...)
	return s, peers
}

func (r running) backend() *status.Backend {
	stats := r.network.Stats()
	b := &status.Backend{
		Type: r.config.BackendType, DataPath: stats.DataPath, DataPathReason: stats.Reason,
		MTU: r.network.MTU(), Drops: stats.Drops,
		Peers: make([]status.Peer, 0, len(stats.Peers)),
	}
	var probes map[netip.Prefix]probe.Result
	if r.prober != nil {
		probes = r.prober.Results()
	}
	for _, p := range stats.Peers {
		var measured *status.Probe
		if m := probes[p.Subnet]; m.Sent > 0 {
			measured = &status.Probe{RTTSeconds: m.RTT.Seconds(), Loss: m.Loss(), MTU: m.MTU, Silent: m.Silent, Since: m.Since}
		}
		b.Peers = append(b.Peers, status.Peer{
			Subnet: p.Subnet, PublicIP: p.PublicIP,
			TxPackets: p.TxPackets, TxBytes: p.TxBytes, RxPackets: p.RxPackets, RxBytes: p.RxBytes,
			Uncounted: p.Uncounted, Problem: p.Problem, Probe: measured,
		})
	}
	return b
}
