package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/uplink"
)

// kernel is the data path of eBPF programs (package bpf), between hosts that have
// it. The offloaded path beneath carries the packets that the programs pass on,
// and all packets while the programs are suspended; see settle.
//
// Programs and device stay when the process ends, and carry packets on. The next
// run takes them over.
type kernel struct {
	*offloaded
	rules   *hostrules.Reader
	lock    io.Closer // of the device
	config  bpf.Config
	taken   pairs // by the programs
	left    pairs // to the offloaded path
	found   bool  // the device is an earlier run's
	changed reconcile.Signal
	fast    *fastpath.Optional
	// inside calls a function in the network's namespace. The kernel looks for an
	// interface to attach programs to in that of the thread (tcx_prog_attach,
	// kernel/bpf/tcx.c). All threads of the daemon are in it; those of tests are not.
	inside func(func() error) error

	mu    sync.Mutex // guards what follows
	peers kernelPeers
	// path is nil while the programs are suspended. Then suspended is the reason,
	// and they are not resumed before until.
	path      *bpf.Path
	suspended error
	until     time.Time
	attached  bool // the first set of peers was applied
	policy    policyFinding
	bypass    bypass
	uplinks   []int // the interfaces that the programs are attached to
	// afterGRO has the reason for each uplink where programs unwrap after GRO.
	afterGRO map[int]error
	// counted and refused are the programs' counts when they were last read.
	counted []bpf.PeerStats
	refused map[string]uint64
}

// errInVRF is why the programs are of no use at an uplink in a VRF.
func errInVRF(up uplink.Uplink) error {
	return fmt.Errorf("interface %s belongs to VRF %s: the programs would send by the routes of no VRF", up.Name, up.VRF)
}

// openKernel loads the programs, or takes over those of an earlier run. New ones
// carry no packet before the first apply. If a rule of the host forbids the programs,
// openKernel fails if the user has named this path, and else opens it suspended.
func openKernel(ctx context.Context, p *pathConfig) (_ dataPath, err error) {
	if _, err := bpf.Probe(); err != nil {
		return nil, err
	}
	taken, left, err := kernelPairs(p.Config, p.outer)
	if err != nil {
		return nil, err
	}
	for _, f := range taken.outer() {
		if up := p.Of(f).Uplink; up.VRF != "" {
			return nil, errInVRF(up)
		}
	}
	k := &kernel{
		changed: reconcile.NewSignal(), peers: newKernelPeers(p), taken: taken, left: left,
		inside: func(f func() error) error { return f() },
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
			p.device = ""
		}
	}()
	if k.rules, err = hostrules.Open(); err != nil {
		return nil, err
	}
	if p.device, k.found, k.lock, err = lockDevice(p.links, p.networks()); err != nil {
		return nil, err
	}
	d, err := openOffloaded(ctx, p)
	if err != nil {
		return nil, err
	}
	k.offloaded = d.(*offloaded)
	link, err := k.links.LinkByName(k.deviceName())
	if err != nil {
		return nil, fmt.Errorf("look up tunnel device %s: %w", k.deviceName(), err)
	}
	k.config = bpf.Config{
		Device: link.Attrs().Index, Port: p.port, Subnets: p.own, MTU: p.deviceMTU(), MaxPeers: k.peers.capacity(),
	}
	for _, f := range taken.outer() {
		k.config.Locals[f] = p.locals[f].Addr()
	}
	if k.config.PinDir, err = bpf.PinDir(k.deviceName()); err != nil {
		return nil, err
	}
	k.openFast()
	k.policy.stale = true
	switch rule := k.forbidden(); {
	case rule == nil:
		return k, k.load()
	case p.named:
		return nil, rule
	default:
		k.suspended = rule
		return k, errors.Join(k.fast.Suspend(), bpf.Remove(k.config.PinDir))
	}
}

// load takes over the programs of an earlier run, or loads new ones.
func (k *kernel) load() (err error) {
	defer func() {
		if err == nil {
			err = k.joinFast()
		}
	}()
	k.path, err = bpf.Load(k.config)
	if err == nil {
		return k.observe()
	}
	log.Warningf("cannot take over kernel data path, load a new one device=%s reason=%q", k.deviceName(), err)
	if err := bpf.Remove(k.config.PinDir); err != nil {
		return err
	}
	if k.path, err = bpf.Load(k.config); err != nil {
		return err
	}
	return k.observe()
}

// observe counts the datagrams that reach the sockets past the programs. Those of peers'
// programs have no checksum, which IPv6 needs a socket's consent for.
func (k *kernel) observe() error {
	for _, f := range k.taken.outer() {
		for _, c := range k.receiving[f] {
			if f == inet.IPv6 {
				if err := c.AcceptZeroChecksum(); err != nil {
					return err
				}
			}
			if err := k.path.ObserveSocket(c.SyscallConn()); err != nil {
				return err
			}
		}
	}
	k.bypass = bypass{}
	return nil
}

// name is offload while the programs are suspended.
func (k *kernel) name() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil {
		return offloadName
	}
	return kernelName
}

// run carries packets, and keeps the programs attached or suspended as the host's
// rules are.
func (k *kernel) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.offloaded.run(ctx) })
	g.Go(func() error { return k.inside(func() error { k.fast.Run(ctx); return nil }) })
	g.Go(func() error { return k.inside(func() error { return k.keep(ctx) }) })
	return g.Wait()
}

// keep verifies the programs when the host's rules change, and now and then.
func (k *kernel) keep(ctx context.Context) error {
	return reconcile.Loop{
		Task:     "keep kernel data path device=" + k.deviceName(),
		Changed:  k.changed,
		Interval: followInterval,
		Burst:    followBurst,
		Every:    verifyEvery,
		Watch: func(ctx context.Context, changed func()) error {
			return k.rules.Run(ctx, nil, func() {
				k.mu.Lock()
				k.policy.stale = true
				k.mu.Unlock()
				changed()
			})
		},
		Step: func(context.Context) error { return k.verify() },
	}.Run(ctx)
}

// detail lists the interfaces of the programs.
func (k *kernel) detail() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := "beneath it: " + k.offloaded.detail()
	if k.path == nil {
		return s
	}
	if k.left != nil {
		s = fmt.Sprintf("%s by offload, since %v; %s", k.left.describe(), errMixed, s)
	}
	var names, afterGRO []string
	for _, index := range k.uplinks {
		l, err := k.links.LinkByIndex(index)
		if err != nil {
			continue
		}
		names = append(names, l.Attrs().Name)
		if reason := k.afterGRO[index]; reason != nil {
			afterGRO = append(afterGRO, fmt.Sprintf("%s (%v)", l.Attrs().Name, reason))
		}
	}
	if k.path.Adopted() {
		s = "programs taken over from an earlier run; " + s
	}
	if afterGRO != nil {
		s = fmt.Sprintf("not before GRO at %s; %s", strings.Join(afterGRO, ", "), s)
	}
	if loss := k.path.Loss(); loss != nil {
		s = fmt.Sprintf("%v; %s", loss, s)
	}
	if left := k.peers.leftOut(); left > 0 {
		s = fmt.Sprintf("%d peers of other subnet lengths by offload; %s", left, s)
	}
	if legacy, err := hostrules.LegacyTables(); err == nil && len(legacy) > 0 {
		s = fmt.Sprintf("passing by legacy iptables (%s); %s", strings.Join(legacy, ", "), s)
	}
	if behind, err := k.path.Behind(); err == nil && behind != "" {
		s = fmt.Sprintf("passing by %s; %s", behind, s)
	}
	if names != nil {
		s = fmt.Sprintf("programs at %s and %s, attached by %s; %s", k.deviceName(), strings.Join(names, ", "), k.path.Hooks(), s)
	}
	return s
}

func (k *kernel) count() {
	counted, refused, err := k.path.Stats()
	if err != nil {
		ratelog.Errorf("read counters of kernel data path device=%s reason=%q", k.deviceName(), err)
		return
	}
	k.counted, k.refused = counted, refused
}

// addTo adds the programs' counts. While the programs are suspended it gives the reason.
func (k *kernel) addTo(s *backend.Stats) {
	k.mu.Lock()
	if k.path != nil {
		k.count()
	}
	counted, refused, suspended := k.counted, k.refused, k.suspended
	k.mu.Unlock()
	if suspended != nil {
		s.Reason = fmt.Sprintf("the kernel path is suspended: %v; %s", suspended, k.detail())
	}
	for reason, n := range refused {
		s.Drops[reason] += n
	}
	s.FastPath = k.fast.Stats()
	bySubnet := make(map[netip.Prefix]bpf.PeerStats, len(counted))
	for _, p := range counted {
		bySubnet[p.Subnet] = p
	}
	for i := range s.Peers {
		p, more := &s.Peers[i], bySubnet[s.Peers[i].Subnet]
		p.TxPackets, p.TxBytes = p.TxPackets+more.TxPackets, p.TxBytes+more.TxBytes
		p.RxPackets, p.RxBytes = p.RxPackets+more.RxPackets, p.RxBytes+more.RxBytes
		p.TxFast = more.TxFast
	}
}

// check returns nil while the programs are suspended: the
// offloaded path carries the packets then.
func (k *kernel) check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil || !k.attached {
		return nil
	}
	return k.path.Check()
}

// close leaves programs and device in place if they carry packets.
func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	name := ""
	if k.offloaded != nil {
		name = k.deviceName()
		errs = append(errs, k.offloaded.close())
	}
	if k.fast != nil {
		errs = append(errs, k.fast.Close())
	}
	if k.path != nil {
		errs = append(errs, k.path.Close())
	}
	if name != "" && (k.suspended != nil || !k.attached && !k.found) {
		errs = append(errs, removePath(k.links, name))
	}
	if k.lock != nil {
		errs = append(errs, k.lock.Close())
	}
	if k.rules != nil {
		errs = append(errs, k.rules.Close())
	}
	return errors.Join(errs...)
}
