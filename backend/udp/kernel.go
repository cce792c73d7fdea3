package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/fastpath"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

const (
	// maxKernelPeers bounds the memory that the kernel reserves for the peers.
	maxKernelPeers = 1 << maxSlotBits
	// sparePeers is room for leases of an earlier configuration that are smaller
	// than SubnetLen.
	sparePeers = 1024
	// followInterval and followBurst bound how often a flapping link makes follow
	// look up the routes to all peers.
	followInterval = 300 * time.Millisecond
	followBurst    = 3
)

// kernel is the data path of eBPF programs (package bpf), between hosts that have
// it. The offloaded path beneath carries the packets that the programs pass on,
// and all packets after the programs have failed.
//
// Programs and device stay when the process ends, and carry packets on. The next
// run takes them over.
type kernel struct {
	*offloaded
	listener *reconcile.Listener
	lock     io.Closer // of the device
	pins     string
	found    bool           // the device is an earlier run's
	fast     *fastpath.Path // nil if it cannot be used

	mu       sync.Mutex // guards what follows
	path     *bpf.Path  // nil once failed is set
	failed   error
	attached bool
	uplinks  []int // the interfaces that the programs are attached to
	// afterGRO has the reason for each uplink where programs unwrap after GRO.
	afterGRO map[int]error
	// counted and refused are the programs' counts when they were last read.
	counted []bpf.PeerStats
	refused map[string]uint64
	// fastReason is why there is no fast path; empty if there is one.
	fastReason string
}

// openKernel loads the programs, or takes over those of an earlier run. New ones
// carry no packet before the first apply.
func openKernel(ctx context.Context, p *pathConfig) (_ dataPath, err error) {
	if err := bpf.Probe(); err != nil {
		return nil, err
	}
	k := &kernel{}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
			p.device = ""
		}
	}()
	// A change after the first apply must not be missed.
	k.listener, err = reconcile.Listen(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE)
	if err != nil {
		return nil, err
	}
	if p.device, k.found, k.lock, err = lockDevice(p.links, p.Network); err != nil {
		return nil, err
	}
	d, err := openOffloaded(ctx, p)
	if err != nil {
		return nil, err
	}
	k.offloaded = d.(*offloaded)
	if k.pins, err = bpf.PinDir(k.deviceName()); err != nil {
		return nil, err
	}
	link, err := k.links.LinkByName(k.deviceName())
	if err != nil {
		return nil, fmt.Errorf("look up tunnel device %s: %w", k.deviceName(), err)
	}
	c := bpf.Config{
		Device: link.Attrs().Index, Port: p.local.Port(), Local: p.local.Addr(), Subnet: p.own,
		MaxPeers: min(1<<(p.SubnetLen-p.Network.Bits()), maxKernelPeers) + sparePeers, PinDir: k.pins,
	}
	if k.path, err = bpf.Load(c); err != nil {
		log.Warningf("cannot take over kernel data path, load a new one device=%s reason=%q", k.deviceName(), err)
		if err := bpf.Remove(k.pins); err != nil {
			return nil, err
		}
		if k.path, err = bpf.Load(c); err != nil {
			return nil, err
		}
	}
	k.openFast(link, p)
	return k, nil
}

// name is offload after the programs have failed.
func (k *kernel) name() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.failed != nil {
		return offloadName
	}
	return kernelName
}

// run carries packets, and keeps the programs attached where routes to peers
// lead.
func (k *kernel) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return k.offloaded.run(ctx) })
	g.Go(func() error { return k.runFast(ctx) })
	g.Go(func() error {
		return reconcile.Loop{
			Task:     "follow routes to peers device=" + k.deviceName(),
			Changed:  reconcile.NewSignal(),
			Interval: followInterval,
			Burst:    followBurst,
			Watch: func(ctx context.Context, changed func()) error {
				return k.listener.Run(ctx, nil, changed)
			},
			Step: func(context.Context) error { k.follow(); return nil },
		}.Run(ctx)
	})
	return g.Wait()
}

// detail lists the interfaces of the programs.
func (k *kernel) detail() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := "beneath it: " + k.offloaded.detail()
	if k.path == nil {
		return s
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
	if names != nil {
		s = fmt.Sprintf("programs at %s and %s; %s", k.deviceName(), strings.Join(names, ", "), s)
	}
	return s
}

// apply changes the programs' peers; the first call has all. Other hosts may send to
// the programs once these are attached.
func (k *kernel) apply(events []subnet.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil {
		return
	}
	if err := k.change(events); err != nil {
		k.fallBack(err)
		return
	}
	k.announce(kernelName)
}

func (k *kernel) change(events []subnet.Event) error {
	var add []bpf.Peer
	var remove []netip.Prefix
	for _, e := range events {
		s := e.Lease.Subnet
		if e.Type == subnet.Removed {
			remove = append(remove, s)
			continue
		}
		p := bpf.Peer{Subnet: s, Addr: e.Lease.Attrs.PublicIP, Kernel: e.Lease.Attrs.DataPath == kernelName}
		add = append(add, p)
	}
	if k.attached {
		if err := k.path.Apply(add, remove); err != nil {
			return err
		}
		if uplinks := unique(slices.Concat(k.uplinks, k.uplinksTo(add))); !slices.Equal(uplinks, k.uplinks) {
			return k.attach(uplinks)
		}
		return nil
	}
	if err := k.path.Set(add); err != nil {
		return err
	}
	if err := k.attach(unique(k.allUplinks())); err != nil {
		return err
	}
	k.attached = true
	return nil
}

// follow attaches the programs where routes to peers lead now.
func (k *kernel) follow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil || !k.attached {
		return
	}
	if exists, err := rtnl.LinkExists(k.links, k.deviceName()); err != nil || !exists {
		return // the programs went with the device, and run ends
	}
	began := time.Now()
	if err := k.attach(unique(k.allUplinks())); err != nil {
		k.fallBack(err)
	}
	if k.Reconciled != nil {
		k.Reconciled(time.Since(began))
	}
}

func (k *kernel) allUplinks() []int {
	uplinks := k.uplinksTo(k.path.Known())
	if l, err := k.links.LinkByName(k.Uplink.Name); err == nil {
		uplinks = append(uplinks, l.Attrs().Index)
	}
	return uplinks
}

// uplinksTo returns the interfaces that the kernel sends by to those peers that
// send to our programs.
func (k *kernel) uplinksTo(peers []bpf.Peer) []int {
	var uplinks []int
	seen := make(map[netip.Addr]struct{})
	for _, p := range peers {
		if _, again := seen[p.Addr]; again || !p.Kernel {
			continue
		}
		seen[p.Addr] = struct{}{}
		routes, err := k.links.RouteGet(p.Addr.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // no route now; follow runs after a change of routes
		}
		uplinks = append(uplinks, routes[0].LinkIndex)
	}
	return uplinks
}

func unique(indexes []int) []int {
	slices.Sort(indexes)
	return slices.Compact(indexes)
}

// attach attaches the programs to uplinks. It moves those of an uplink whose
// properties, such as offloads, have changed.
func (k *kernel) attach(uplinks []int) error {
	if err := k.path.Attach(uplinks); err != nil {
		return err
	}
	afterGRO := k.path.XDPRefusals()
	if slices.Equal(uplinks, k.uplinks) && fmt.Sprint(afterGRO) == fmt.Sprint(k.afterGRO) {
		return nil
	}
	log.Infof("attach kernel data path device=%s uplinks=%v after_gro=%v", k.deviceName(), uplinks, afterGRO)
	k.uplinks, k.afterGRO = uplinks, afterGRO
	return nil
}

// fallBack removes the programs: with an incomplete table they would drop packets
// as forged. The offloaded path carries all packets from now on.
func (k *kernel) fallBack(err error) {
	log.Errorf("give up kernel data path, go on with offload device=%s reason=%q", k.deviceName(), err)
	k.count()
	k.failed = err
	if err := errors.Join(k.path.Close(), bpf.Remove(k.pins)); err != nil {
		log.Errorf("remove kernel data path device=%s reason=%q", k.deviceName(), err)
	}
	k.path = nil
	k.announce("")
}

func (k *kernel) count() {
	counted, refused, err := k.path.Stats()
	if err != nil {
		ratelog.Errorf("read counters of kernel data path device=%s reason=%q", k.deviceName(), err)
		return
	}
	k.counted, k.refused = counted, refused
}

// addTo adds the programs' counts. After a failure it gives the reason.
func (k *kernel) addTo(s *backend.Stats) {
	k.mu.Lock()
	if k.path != nil {
		k.count()
	}
	counted, refused, failed := k.counted, k.refused, k.failed
	k.mu.Unlock()
	if failed != nil {
		s.Reason = fmt.Sprintf("the kernel path failed: %v; %s", failed, k.detail())
	}
	for reason, n := range refused {
		s.Drops[reason] += n
	}
	s.FastPath = k.fastStats()
	bySubnet := make(map[netip.Prefix]bpf.PeerStats, len(counted))
	for _, p := range counted {
		bySubnet[p.Subnet] = p
	}
	for i := range s.Peers {
		p, more := &s.Peers[i], bySubnet[s.Peers[i].Subnet]
		p.TxPackets, p.TxBytes = p.TxPackets+more.TxPackets, p.TxBytes+more.TxBytes
		p.RxPackets, p.RxBytes = p.RxPackets+more.RxPackets, p.RxBytes+more.RxBytes
	}
}

// check returns nil after the programs have failed: the offloaded path carries the
// packets then.
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
	if name != "" && (k.failed != nil || !k.attached && !k.found) {
		errs = append(errs, removePath(k.links, name))
	}
	if k.lock != nil {
		errs = append(errs, k.lock.Close())
	}
	if k.listener != nil {
		errs = append(errs, k.listener.Close())
	}
	return errors.Join(errs...)
}
