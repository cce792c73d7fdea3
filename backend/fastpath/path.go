package fastpath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/coreos/flannel/pkg/hostrules"
	"github.com/coreos/flannel/pkg/reconcile"
)

// interval and burst bound how often many containers that come and go cause a Step of the
// loop.
const (
	interval = 50 * time.Millisecond
	burst    = 5
)

// Path is the fast path of one network. It serves containers between Join and
// Suspend. Its methods may be called concurrently, but for Run and Close.
type Path struct {
	config   Config
	adopted  bool
	windows  *windows
	links    *netlink.Handle
	listener *reconcile.Listener // of links, neighbours and addresses
	rules    *hostrules.Reader
	changed  reconcile.Signal

	// work is held by each change of the programs. It guards joined, places and labels.
	work     sync.Mutex
	programs *programs
	joined   bool
	places   places
	moves    *rate.Limiter  // of addresses
	labels   map[int]string // of the last look

	mu     sync.Mutex // guards what follows
	known  topology   // as of the last look
	looks  bool       // a look is under way: known is of before
	status Status
	cuts   map[uint32]string // see cutReasons
	// stale: rules have changed since the last look. suspendErr is why the programs
	// could not be suspended then.
	stale      bool
	suspendErr error
}

// Status says what the fast path serves.
type Status struct {
	// Containers is the number of addresses that packets are exchanged with.
	Containers int
	// Off are the reasons why some or all packets take the long way, in order.
	Off []string
	// Cut says which devices of the long way have cut super-packets, and why, in order.
	Cut []string
}

// notJoined is the reason before Join and after Suspend.
const notJoined = "the tunnel's programs are suspended"

// New loads the programs, or adopts those of an earlier process, which stay at
// work meanwhile. It runs in the network namespace of the device; so do the other
// methods.
//
// Errors: errors.Is(err, os.ErrPermission) where capabilities are missing;
// ebpf.ErrNotSupported where the kernel lacks what the programs call.
func New(c Config) (_ *Path, err error) {
	p := &Path{config: c, places: make(places), moves: rate.NewLimiter(rate.Every(movesEvery), movesBurst), changed: reconcile.NewSignal()}
	if !c.direct() {
		p.status.Off = []string{notJoined}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.programs, p.adopted, err = open(c); err != nil {
		return nil, err
	}
	// Rules may have changed since a process has marked the flows, whether or not its
	// programs are left.
	p.stale = true // promise: rules-changed-meanwhile
	if p.windows, err = openWindows(p.programs); err != nil {
		return nil, err
	}
	if p.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	return p, p.watch()
}

// Adopted reports whether the programs were left by an earlier process.
func (p *Path) Adopted() bool { return p.adopted }

// Join has the path serve containers by the tunnel's programs. Those of an earlier
// Join are replaced between two packets.
func (p *Path) Join(t Tunnel) error {
	p.work.Lock()
	defer p.work.Unlock()
	if err := p.programs.join(t); err != nil {
		return err
	}
	p.joined = true
	p.changed.Set()
	return nil
}

// Suspend detaches the programs until the next Join. All packets take the long way
// when it returns.
func (p *Path) Suspend() error {
	p.work.Lock()
	defer p.work.Unlock()
	p.joined = false
	p.note(topology{}, nil, Status{Off: []string{notJoined}})
	return errors.Join(p.programs.leave(), unmark(p.config.Name))
}

// Run keeps the programs up to date with containers and rules, until ctx ends
// (nil) or it fails. It is called once at most. When it returns, all goroutines
// that it started have ended. After ctx ends the programs stay at work for
// [lifetime]; after an error all packets take the long way.
func (p *Path) Run(ctx context.Context) error {
	err := reconcile.Loop{
		Task:     "reconcile fast path of " + p.config.Name,
		Changed:  p.changed,
		Interval: interval,
		Burst:    burst,
		Every:    renewEvery,
		Watch:    p.runWatches,
		Step: func(context.Context) error {
			if err := p.reconcile(); err != nil {
				// What is served may no longer be right.
				p.noteFailure(err)
				return errors.Join(err, p.programs.suspend())
			}
			return nil
		},
	}.Run(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("run fast path: %w", err), p.programs.suspend())
	}
	return nil
}

// reconcile makes the programs serve what the kernel has now.
func (p *Path) reconcile() error {
	p.work.Lock()
	defer p.work.Unlock()
	p.mu.Lock()
	p.looks = p.joined
	p.mu.Unlock()
	if !p.joined {
		return nil
	}
	// "flannel cleanup -force" removes them.
	if err := p.programs.preparePins(); err != nil { // promise: removed-program-is-attached-again
		return err
	}
	t, err := discover(p.links, p.config)
	if err != nil {
		return err
	}
	if p.relabelled(t) {
		p.rulesChanged()
	}
	if err := p.beginJudgement(); err != nil {
		return err
	}
	f, err := p.inspect(t)
	if err != nil {
		return err
	}
	var serve []Container
	outer := f.serves(t)
	for _, c := range t.containers {
		if len(outer) > 0 && len(f.all) == 0 && f.ports[c.Port] == "" {
			serve = append(serve, c)
		}
	}
	if len(serve) > 0 {
		if err := mark(p.config, outer); err != nil {
			return err
		}
	}
	w := service{serve, outer, p.detours(t, f)}
	if w.containers, f.restless, err = p.move(w); err != nil {
		return err
	}
	p.places.note(w.containers)
	if err := p.programs.set(w); err != nil {
		return err
	}
	if err := p.programs.seal(); err != nil {
		return err
	}
	if err := p.refresh(w.containers); err != nil {
		return err
	}
	if err := p.endJudgement(len(f.replyless) > 0); err != nil {
		return err
	}
	p.note(t, f.cutReasons(t), Status{Containers: len(w.containers), Off: f.reasons(t)})
	return nil
}

// relabelled reports whether an interface has another name or group than at the last
// look. Rules may select it by either.
func (p *Path) relabelled(t topology) bool {
	for index, label := range p.labels {
		if now, ok := t.labels[index]; ok && now != label { // promise: renamed-interface-is-judged-again
			p.labels = t.labels
			return true
		}
	}
	p.labels = t.labels
	return false
}

// note keeps what was found.
func (p *Path) note(t topology, cuts map[uint32]string, s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(s.Off, p.status.Off) {
		log.Infof("change fast path of=%s containers=%d off=%q", p.config.Name, s.Containers, s.Off)
	}
	p.known, p.looks, p.cuts, p.status = t, false, cuts, s
}

// noteFailure keeps why a look has failed.
func (p *Path) noteFailure(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = Status{Off: strings.Split(err.Error(), "\n")}
}

// Status returns what the last look at the kernel has found, and which devices have
// cut super-packets.
func (p *Path) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{p.status.Containers, slices.Clone(p.status.Off), p.programs.cut(p.cuts)}
}

// Stats reads the counters.
func (p *Path) Stats() (Stats, error) { return p.programs.stats() }

// Close releases the resources of the process. The programs stay at work for
// [lifetime]. Run must have returned.
func (p *Path) Close() error {
	var errs []error
	if p.listener != nil {
		errs = append(errs, p.listener.Close())
	}
	if p.rules != nil {
		errs = append(errs, p.rules.Close())
	}
	if p.windows != nil {
		errs = append(errs, p.windows.close())
	}
	if p.links != nil {
		p.links.Close()
	}
	if p.programs != nil {
		errs = append(errs, p.programs.close())
	}
	return errors.Join(errs...)
}
