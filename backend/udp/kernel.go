package udp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/subnet"
)

const (
	// maxKernelPeers bounds the memory that the kernel sets aside at once.
	maxKernelPeers = 1 << maxSlotBits
	// sparePeers is room for leases that are smaller than the configured length,
	// left from an earlier configuration.
	sparePeers = 1024
)

// kernel is the data path of eBPF programs (package bpf), between hosts
// that have it. The offloaded path underneath takes all that they leave alone,
// and takes over where they fail.
//
// Programs and device stay when the process ends, and go on with packets. The
// next run takes them over.
type kernel struct {
	*offloaded
	links *netlink.Handle
	claim io.Closer
	pins  string
	found bool // the device was left by an earlier run

	mu       sync.Mutex // guards what follows
	path     *bpf.Path  // nil after failed was set
	failed   error
	attached bool
	uplinks  []int         // that the programs are attached to
	late     map[int]error // those that are not unwrapped before GRO
	// last is what a failed path had counted.
	last counted
}

// counted is what the programs have counted.
type counted struct {
	peers []bpf.PeerStats
	drops map[string]uint64
}

// openKernel loads the programs, or takes over those at work. New ones carry no
// packet before the first apply.
func openKernel(ctx context.Context, p *plane) (_ dataPath, err error) {
	if err := bpf.Probe(); err != nil {
		return nil, err
	}
	k := &kernel{}
	defer func() {
		if err != nil {
			err = errors.Join(err, k.close())
			p.device = persistent{}
		}
	}()
	if k.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	if p.device.name, k.found, k.claim, err = claimDevice(k.links, p.network); err != nil {
		return nil, err
	}
	p.device.on = true
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
		MaxPeers: min(1<<(p.subnetLen-p.network.Bits()), maxKernelPeers) + sparePeers, PinDir: k.pins,
	}
	if k.path, err = bpf.Load(c); err != nil {
		log.Warningf("cannot take over kernel data path, load it anew device=%s reason=%q", k.deviceName(), err)
		if err := bpf.Remove(k.pins); err != nil {
			return nil, err
		}
		if k.path, err = bpf.Load(c); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// detail says where the programs are at work, or why they no longer are.
func (k *kernel) detail() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := "beneath it: " + k.offloaded.detail()
	if k.path == nil {
		return s
	}
	var names, late []string
	for _, index := range k.uplinks {
		l, err := k.links.LinkByIndex(index)
		if err != nil {
			continue
		}
		names = append(names, l.Attrs().Name)
		if reason := k.late[index]; reason != nil {
			late = append(late, fmt.Sprintf("%s (%v)", l.Attrs().Name, reason))
		}
	}
	if k.path.Adopted() {
		s = "programs taken over from an earlier run; " + s
	}
	if late != nil {
		s = fmt.Sprintf("not before GRO at %s; %s", strings.Join(late, ", "), s)
	}
	if names != nil {
		s = fmt.Sprintf("programs at %s and %s; %s", k.deviceName(), strings.Join(names, ", "), s)
	}
	return s
}

// works reports whether the programs are at work, or may yet be.
func (k *kernel) works() (attached bool, failed error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.attached && k.failed == nil, k.failed
}

// apply changes the peers. The first events are all of them.
func (k *kernel) apply(events []subnet.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == nil {
		return
	}
	if err := k.change(events); err != nil {
		k.giveUp(err)
	}
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
	if err := k.attach(unique(k.allUplinks())); err != nil {
		k.giveUp(err)
	}
}

func (k *kernel) allUplinks() []int {
	uplinks := k.uplinksTo(k.path.Known())
	if l, err := k.links.LinkByName(k.uplink.Name); err == nil {
		uplinks = append(uplinks, l.Attrs().Index)
	}
	return uplinks
}

// uplinksTo are the interfaces by which the kernel sends to those of the peers
// that send to our programs.
func (k *kernel) uplinksTo(peers []bpf.Peer) []int {
	var uplinks []int
	asked := make(map[netip.Addr]struct{})
	for _, p := range peers {
		if _, again := asked[p.Addr]; again || !p.Kernel {
			continue
		}
		asked[p.Addr] = struct{}{}
		routes, err := k.links.RouteGet(p.Addr.AsSlice())
		if err != nil || len(routes) == 0 {
			continue // no way to it now; a change of routes is told
		}
		if i := routes[0].LinkIndex; !slices.Contains(uplinks, i) {
			uplinks = append(uplinks, i)
		}
	}
	return uplinks
}

func unique(indexes []int) []int {
	slices.Sort(indexes)
	return slices.Compact(indexes)
}

func sameText(a, b error) bool { return a.Error() == b.Error() }

// attach attaches the programs anew where what is known of an uplink, such as
// its offloads, has changed, too.
func (k *kernel) attach(uplinks []int) error {
	if err := k.path.Attach(uplinks); err != nil {
		return err
	}
	late := k.path.XDPRefusals()
	if slices.Equal(uplinks, k.uplinks) && maps.EqualFunc(late, k.late, sameText) {
		return nil
	}
	log.Infof("attach kernel data path device=%s uplinks=%v after_gro=%v", k.deviceName(), uplinks, late)
	k.uplinks, k.late = uplinks, late
	return nil
}

// giveUp ends the programs: with a table that is not whole they would refuse
// packets as forged. The offloaded path has them all from now on.
func (k *kernel) giveUp(err error) {
	log.Errorf("give up kernel data path, go on with offload device=%s reason=%q", k.deviceName(), err)
	k.last = k.count()
	k.failed = err
	if err := errors.Join(k.path.Close(), bpf.Remove(k.pins)); err != nil {
		log.Errorf("remove kernel data path device=%s reason=%q", k.deviceName(), err)
	}
	k.path = nil
}

func (k *kernel) count() counted {
	peers, drops, err := k.path.Stats()
	if err != nil {
		ratelog.Errorf("read counters of kernel data path device=%s reason=%q", k.deviceName(), err)
		return k.last
	}
	return counted{peers, drops}
}

// addTo adds what the programs have counted.
func (k *kernel) addTo(s *backend.Stats) {
	k.mu.Lock()
	if k.path != nil {
		k.last = k.count()
	}
	c := k.last
	k.mu.Unlock()
	for reason, n := range c.drops {
		s.Drops[reason] += n
	}
	bySubnet := make(map[netip.Prefix]bpf.PeerStats, len(c.peers))
	for _, p := range c.peers {
		bySubnet[p.Subnet] = p
	}
	for i := range s.Peers {
		p, more := &s.Peers[i], bySubnet[s.Peers[i].Subnet]
		p.TxPackets, p.TxBytes = p.TxPackets+more.TxPackets, p.TxBytes+more.TxBytes
		p.RxPackets, p.RxBytes = p.RxPackets+more.RxPackets, p.RxBytes+more.RxBytes
	}
}

// close leaves programs and device at work, unless they were not.
func (k *kernel) close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var errs []error
	name := ""
	if k.offloaded != nil {
		name = k.deviceName()
		errs = append(errs, k.offloaded.close())
	}
	if k.path != nil {
		errs = append(errs, k.path.Close())
	}
	if name != "" && (k.failed != nil || !k.attached && !k.found) {
		errs = append(errs, removePath(k.links, name))
	}
	if k.claim != nil {
		errs = append(errs, k.claim.Close())
	}
	if k.links != nil {
		k.links.Close()
	}
	return errors.Join(errs...)
}
