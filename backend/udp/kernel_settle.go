package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend/udp/bpf"
	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
	"github.com/coreos/flannel/subnet"
)

const (
	// verifyEvery is the period of looks at the programs. The kernel does not
	// announce that another program is attached before ours.
	verifyEvery = 5 * time.Second
	// bypassPause is how long the programs stay suspended after datagrams have
	// passed them by: the cause is not visible. failurePause is the same after
	// another failure.
	bypassPause  = 10 * time.Minute
	failurePause = time.Minute
)

// policyFinding is the rule of the host that forbids the programs.
type policyFinding struct {
	rule  error // nil: none
	stale bool  // the rules or the peers have changed since
}

// bypass observes whether something leads datagrams past the programs.
type bypass struct {
	passed  uint64
	repairs int
	strikes int
	seen    time.Time
}

// maxPassed is the number of datagrams between two looks that are normal while peers
// come and go. maxStrikes is the number of looks in a row with more.
const (
	maxPassed  = 8
	maxStrikes = 2
)

// apply changes the peers; the first call has all. Other hosts may send to the
// programs once these are attached.
func (k *kernel) apply(events []subnet.Event) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var changed []netip.Prefix
	for _, e := range events {
		if !k.config.Subnets[e.Family].IsValid() {
			continue
		}
		s := e.Subnet()
		changed = append(changed, s)
		k.peers.remove(s)
		if p := k.table.peerOf(s); p != nil {
			k.peers.add(k.peerOf(p, e.Lease.Attrs))
		}
	}
	k.policy.stale = true
	first := !k.attached
	k.settle(func() error { return k.write(changed) })
	if first && k.named && k.path == nil {
		k.attached = false
		k.changed.Set() // verify ends the run
	}
}

// peerOf returns a peer for the programs.
func (k *kernel) peerOf(p *peer, l subnet.Attrs) bpf.Peer {
	way := pair{inet.Of(p.subnet.Addr()), p.outer}
	b := bpf.Peer{Subnet: p.subnet, Outer: p.outer, Kernel: slices.Contains(k.taken.outer(), p.outer) && way.takenBy(l)}
	for _, f := range k.taken.outer() {
		b.Addrs[f] = l.Addr(f)
	}
	return b
}

// follow attaches the programs where routes to peers lead now.
func (k *kernel) follow() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.attached {
		_ = k.inside(func() error { k.settle(k.writeAll); return nil })
	}
}

// verify puts programs back that are not in their place, and suspends or resumes
// them as the host's rules are now.
func (k *kernel) verify() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.attached {
		if k.named && k.suspended != nil {
			return reconcile.Stop(fmt.Errorf("-udp-datapath=%s: %w", kernelName, k.suspended))
		}
		return nil
	}
	if k.path == nil || k.policy.stale || k.path.CheckLinks() != nil {
		k.settle(func() error { return k.attach(k.allUplinks()) })
	}
	if k.path == nil {
		return nil
	}
	if err := k.passedBy(); err != nil {
		k.suspend(err)
		k.until = time.Now().Add(bypassPause)
	}
	return nil
}

// settle suspends the programs if something forbids them. Otherwise it calls update,
// or resumes them. The caller holds mu.
func (k *kernel) settle(update func() error) {
	if exists, err := rtnl.LinkExists(k.links, k.deviceName()); err != nil || !exists {
		return // the programs went with the device, and run ends
	}
	if err := k.obstacle(); err != nil {
		k.suspend(err)
		k.attached = true
		return
	}
	if k.path == nil {
		if time.Now().Before(k.until) {
			k.attached = true
			return
		}
		if err := k.load(); err != nil {
			k.fail(err)
			return
		}
		log.Infof("resume kernel data path device=%s", k.deviceName())
		k.suspended = nil
	}
	if !k.attached || !k.peers.written {
		update = k.writeAll
	}
	k.attached = true
	if err := update(); err != nil {
		k.fail(err)
		return
	}
	k.announce(kernelName, k.taken.String())
}

// fail suspends the programs after an error of ours: with an incomplete table they
// would drop packets as forged.
func (k *kernel) fail(err error) {
	k.suspend(err)
	k.attached = true
	k.until = time.Now().Add(failurePause)
}

// obstacle returns why the programs must not carry packets now, or nil.
func (k *kernel) obstacle() error {
	if rule := k.forbidden(); rule != nil {
		return rule
	}
	for _, p := range k.peers.all {
		for _, a := range p.Addrs {
			if n := len(k.table.arrivalsOf(a)); n > bpf.MaxUplinks {
				return fmt.Errorf("routes to peer %v name %d interfaces; the programs take %d", a, n, bpf.MaxUplinks)
			}
		}
	}
	return nil
}

// forbidden returns the rule of the host that forbids the programs, or nil. If the
// rules cannot be read, the last finding holds.
func (k *kernel) forbidden() error {
	if !k.policy.stale {
		return k.policy.rule
	}
	var found error
	for _, f := range k.taken.outer() {
		rule, err := k.rules.Find(hostrules.Datagrams{Local: k.config.Locals[f], Port: k.config.Port, Peers: k.peers.hosts(f)})
		if err != nil {
			ratelog.Errorf("read the host's rules: %v", err)
			return k.policy.rule
		}
		if rule != "" && found == nil {
			found = errors.New(rule)
		}
	}
	k.policy = policyFinding{rule: found}
	return found
}

// passedBy returns an error if datagrams of peers' programs keep reaching the
// sockets, or if another program keeps running before ours.
func (k *kernel) passedBy() error {
	if time.Since(k.bypass.seen) < verifyEvery/2 {
		return nil
	}
	passed, err := k.path.Passed()
	if err != nil {
		ratelog.Errorf("verify kernel data path: %v", err)
		return nil
	}
	b := bypass{passed: passed, repairs: k.path.Repairs(), seen: time.Now()}
	if b.passed > k.bypass.passed+maxPassed || b.repairs > k.bypass.repairs {
		b.strikes = k.bypass.strikes + 1
	}
	n := b.passed - k.bypass.passed
	if k.bypass = b; b.strikes < maxStrikes {
		return nil
	}
	return fmt.Errorf("%d datagrams of peers passed the programs by in %v, and programs were put back %d times: another program is before them (see: bpftool net)", n, verifyEvery, b.repairs)
}

// allUplinks returns the interfaces that datagrams of peers' programs arrive by, and
// the uplink.
func (k *kernel) allUplinks() []int {
	var uplinks []int
	for _, p := range k.peers.all {
		if !p.Kernel {
			continue
		}
		for _, a := range p.Addrs {
			for _, index := range k.table.arrivalsOf(a) {
				if !slices.Contains(uplinks, int(index)) {
					uplinks = append(uplinks, int(index))
				}
			}
		}
	}
	for _, f := range k.taken.outer() {
		if l, err := k.links.LinkByName(k.Of(f).Uplink.Name); err == nil {
			uplinks = append(uplinks, l.Attrs().Index)
		}
	}
	slices.Sort(uplinks)
	return slices.Compact(uplinks)
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

// suspend removes the programs. The offloaded path carries all packets from now on.
func (k *kernel) suspend(err error) {
	if k.suspended == nil || k.suspended.Error() != err.Error() {
		log.Errorf("give up kernel data path, go on with offload device=%s reason=%q", k.deviceName(), err)
	}
	k.suspended = err
	k.announce("", "")
	if k.path == nil {
		return
	}
	k.count()
	if err := errors.Join(k.fast.Suspend(), k.path.Close(), bpf.Remove(k.config.PinDir)); err != nil {
		log.Errorf("remove kernel data path device=%s reason=%q", k.deviceName(), err)
	}
	k.path, k.uplinks, k.afterGRO, k.peers.written = nil, nil, nil, false
}
