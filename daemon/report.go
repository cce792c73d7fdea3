package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/cni/conflist"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/probe"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/subnetfile"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// reporter describes the state: to the status page, systemd and the log.
type reporter struct {
	options *Options
	state   *state
	// endpoints are the store's, with schemes and without credentials.
	endpoints []string
	events    *status.EventLog
	checks    checkCache
	// lostLines returns how many lines of the log are lost; nil: it is not known.
	lostLines func() uint64
	// subnetFile is the runner's to write.
	subnetFile *subnetfile.Keeper
	// cniConf is the container engine's configuration, which the runner publishes.
	cniConf *conflist.Keeper
}

func newReporter(o *Options, s *state, events *status.EventLog) *reporter {
	endpoints, err := o.store.Servers()
	if err != nil {
		log.V(1).Infof("report no endpoints: %v", err) // the start fails soon
	}
	return &reporter{options: o, state: s, events: events, endpoints: endpoints, subnetFile: subnetfile.NewKeeper(o.subnetFile), cniConf: conflist.New(o.cniConf, o.cniConfDir)}
}

// full returns the whole report. Its cost grows with the number of peers, so
// periodic work uses summary.
func (r *reporter) full() (report status.Snapshot) {
	r.state.read(func(s progress) {
		report, _ = r.describe(s, pauseFactor)
		report.Events = append(report.Events, r.events.Recent()...)
		if report.Lease != nil && s.network != nil {
			report.Backend = describeBackend(s)
		}
	})
	return report
}

// summary is the report without events and peers, whose cost grows with them.
type summary struct {
	status.Snapshot
	peers    int    // how many the control plane knows
	dataPath string // on one line; "" without a network
}

// summary returns the summary for periodic work. It takes every lock of control
// plane and data plane, so it hangs if one of them does.
func (r *reporter) summary() (sum summary) {
	r.state.read(func(s progress) {
		if s.network != nil {
			sum.dataPath = s.network.DataPath()
		}
		sum.Snapshot, sum.peers = r.describe(s, idlePauseFactor)
	})
	return sum
}

// statusLine describes the daemon in one line.
func (r *reporter) statusLine() string {
	s := r.summary()
	switch {
	case len(s.NotReady) > 0:
		return s.NotReady[0]
	case !s.Store.Reachable:
		return fmt.Sprintf("subnet %s, %d peers; store not reachable since %s", s.Lease.Subnets(), s.peers, s.Store.Since.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("subnet %s, %d peers, data path %s", s.Lease.Subnets(), s.peers, s.dataPath)
}

// describe returns the part that full and summary share, and the number of peers.
// factor bounds the network's Check.
func (r *reporter) describe(p progress, factor int) (s status.Snapshot, peers int) {
	v4, v6 := p.sides[inet.IPv4], p.sides[inet.IPv6]
	s.Node = status.Node{PublicIP: v4.publicIP, Iface: v4.uplink.Name, MTU: v4.uplink.MTU,
		PublicIPv6: v6.publicIP, IPv6Iface: v6.uplink.Name, IPv6MTU: v6.uplink.MTU}
	if r.lostLines != nil {
		s.LostLogLines = r.lostLines()
	}
	missing := func(format string, args ...any) {
		s.NotReady = append(s.NotReady, fmt.Sprintf(format, args...))
	}
	s.Store.Endpoints, s.Store.Prefix = r.endpoints, r.options.store.Config().Network()
	outside := p.outside()
	if len(outside) == 0 {
		missing("waiting for an interface with an address")
		return s, peers
	}
	if problem := p.sides[outside[0]].problem; problem != "" {
		missing("the interface to the other hosts cannot be used: %s", problem)
	}
	s.FamilyProblems = familyProblems(p)
	s.Losses = slices.Compact(slices.Sorted(slices.Values(p.losses))) // both families may have the same
	if p.store.Source == nil {
		missing("waiting for the store %v", r.options.store.Config().Servers())
		return s, peers
	}
	s.BadLeaseData = p.store.BadCount()
	s.Store.API = p.store.API
	if p.manager == nil {
		missing("waiting for the network configuration %s%s", r.options.store.Config().ConfigName(), because(p.configError))
		return s, peers
	}
	s.BadLeaseData += p.manager.BadCount()
	control := p.manager.Status()
	peers, s.HeldPeers, s.ConfigRefused = control.Peers, control.Held, control.ConfigRefused
	s.Store.Reachable, s.Store.Since = control.StoreError == nil, control.Since
	l := control.Lease
	if !l.IsValid() {
		missing("waiting for a subnet%s", because(control.AcquireError))
		return s, peers
	}
	s.Lease = &status.Lease{Subnet: l.Subnet, IPv6Subnet: l.IPv6Subnet, ExpiresAt: l.Expiration, Reserved: l.Reserved}
	if control.Expired {
		missing("the lease of %s expired at %s and could not be renewed", l.Subnets(), l.Expiry())
	}
	if p.network == nil {
		missing("%s", cmp.Or(p.replaced, "waiting for the network device"))
		return s, peers
	}
	if !p.applied {
		missing("waiting for the first full set of peers")
		return s, peers
	}
	if err := r.subnetFile.Problem(); err != nil {
		missing("containers that start now get old values: %v", err)
	}
	s.NotReady = append(s.NotReady, r.checks.differences(p.network, factor)...)
	for _, f := range p.inside(p.config) {
		if routes := p.routes[f]; routes != nil {
			s.NotReady = append(s.NotReady, lines(routes.Check())...)
		}
	}
	return s, peers
}

// familyProblems returns why packets of one family do not flow, while the other's may.
func familyProblems(p progress) (problems []string) {
	add := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	for _, f := range p.outside()[1:] {
		if problem := p.sides[f].problem; problem != "" {
			add("the %v interface to the other hosts cannot be used: %s", f, problem)
		}
	}
	for _, f := range inet.Families {
		if awaited := p.sides[f].awaited; awaited != "" {
			add("waiting for the %v interface to the other hosts: %s", f, awaited)
		}
	}
	for _, f := range p.left() {
		add("this host carries no %v: %s", f, p.without[f])
	}
	return problems
}

// because returns err as the end of a sentence; nothing for nil.
func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// describeBackend describes the network of s, which is not nil.
func describeBackend(s progress) *status.Backend {
	stats := s.network.Stats()
	b := &status.Backend{
		Type: s.config.BackendType, DataPath: stats.DataPath, DataPathReason: stats.Reason,
		MTU: s.network.MTU(), Drops: stats.Drops,
		Peers: make([]status.Peer, 0, len(stats.Peers)),
	}
	if f := stats.FastPath; f != nil {
		b.FastPath = &status.FastPath{Containers: f.Containers, TxPackets: f.TxPackets, RxPackets: f.RxPackets, LongWay: f.LongWay, Off: f.Off, Cut: f.Cut}
	}
	probes := make(map[netip.Prefix]probe.Result)
	for _, prober := range s.probers {
		if prober != nil {
			maps.Copy(probes, prober.Results())
		}
	}
	for _, p := range stats.Peers {
		var measured *status.Probe
		if m := probes[p.Subnet]; m.Sent > 0 {
			measured = &status.Probe{RTTSeconds: m.RTT.Seconds(), Loss: m.Loss(), MTU: m.MTU, Silent: m.Silent, Since: m.Since}
		}
		if routes := s.routes[inet.Of(p.Subnet.Addr())]; p.Problem == "" && routes != nil {
			if err := routes.Problem(p.Subnet); err != nil {
				p.Problem = err.Error()
			}
		}
		b.Peers = append(b.Peers, status.Peer{
			Subnet: p.Subnet, PublicIP: p.PublicIP,
			TxPackets: p.TxPackets, TxBytes: p.TxBytes, RxPackets: p.RxPackets, RxBytes: p.RxBytes, TxFast: p.TxFast,
			Uncounted: p.Uncounted, Problem: p.Problem, Probe: measured,
		})
	}
	if s.offloads != nil {
		s.offloads.describe(b)
	}
	return b
}

// readyLine is a log line with every choice that the start has made, and the
// reason where the choice was not the operator's. It holds no password: endpoints
// have no user in them (etcd.ClientConfig).
func (r *reporter) readyLine(config *subnet.Config, lease subnet.Lease, network backend.Network) string {
	o, p, stats := r.options, r.state.get(), network.Stats()
	side := p.sides[p.outside()[0]]
	return fmt.Sprintf("ready subnet=%s network=%s backend=%s datapath=%s mtu=%d peers=%d subnet_file=%s datapath_reason=%q "+
		"iface=%s iface_reason=%q public_ip=%v expires=%s node_id=%s ip_masq=%t %s status_addr=%s state_dir=%s probe_interval=%v",
		lease.Subnets(), config.Networks(), config.BackendType, stats.DataPath, network.MTU(), len(stats.Peers), o.subnetFile, stats.Reason,
		side.uplink.Name, side.uplink.Reason, lease.Attrs.HostAddr(), lease.Expiry(), lease.Attrs.NodeID, o.ipMasq,
		storeChoices(o.store.Config(), p.store.API), o.statusAddr, o.stateDir, o.probeInterval)
}

// storeChoices is the store's part of the line "ready".
func storeChoices(c store.Config, api string) string {
	servers := strings.Join(c.Servers(), ",")
	if api == store.APIKubernetes {
		return "kubernetes=" + servers
	}
	return fmt.Sprintf("etcd=%s etcd_api=%s etcd_prefix=%s etcd_user=%q", servers, api, c.Prefix, c.Username)
}

// statusServer serves reports over HTTP.
type statusServer struct {
	server *status.Server
	// optional: the operator did not choose the address, so one in use is no failure.
	optional bool
}

// Run serves until ctx ends (nil) or the server fails.
func (s *statusServer) Run(ctx context.Context) error {
	err := s.server.Run(ctx)
	if errors.Is(err, unix.EADDRINUSE) && s.optional {
		log.Warningf("no status server: %v; a second daemon on this host needs -status-addr", err)
		return nil
	}
	return err
}
