package offloadprobe

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sync/errgroup"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
)

// Config configures a Prober.
type Config struct {
	// Locals are the addresses at which this host answers probes, one for each family of the
	// containers' packets. Its own probes come from them. UDP also uses the next port. The
	// kernel need not have the addresses yet.
	Locals []netip.AddrPort
	// MTU is the largest packet that containers can send, in bytes.
	MTU int
	// Interval is the time between two checks of one kind of a peer. It is longer for
	// many peers and for a large MTU (budget.go).
	Interval time.Duration
	// Peers returns the peers; a host of both families is one in each. Those of a family
	// without an address in Locals are not probed. Peers is called once for each group of
	// checks. For unknown addresses it is called at most once a second.
	Peers func() []Peer
	// JoinsTCP, if not nil, reports whether this process encapsulates packets, and sends
	// several of TCP as one super-packet.
	JoinsTCP func() bool
	// Reaches, if not nil, returns the size of the largest packet that reaches a peer, as
	// pings have found it; 0 while it is not known.
	Reaches func(peer netip.Prefix) int
	// Changed, if not nil, is called after each change of a result. It must return soon,
	// and must not call the Prober.
	Changed func(Change)
}

// localFor returns the source of probes to an address; invalid if no local address is of
// its family.
func (c *Config) localFor(to netip.AddrPort) netip.Addr {
	for _, local := range c.Locals {
		if inet.Of(local.Addr()) == inet.Of(to.Addr()) {
			return local.Addr()
		}
	}
	return netip.Addr{}
}

// cost is that of a peer in the family that costs most.
func (c *Config) cost() (most int) {
	for _, local := range c.Locals {
		most = max(most, cost(inet.Of(local.Addr()), c.MTU))
	}
	return most
}

const (
	// visitsAtOnce and diagnosesAtOnce bound the peers that are checked, and those that
	// are diagnosed, at one time.
	visitsAtOnce, diagnosesAtOnce = 32, 4
	// refreshLimit is the minimum time between two refreshes for unknown addresses. It is
	// also the time between two probes because of the news of a peer.
	refreshLimit = time.Second
)

// Prober probes the path to each peer, and answers the peers' probes, while Run runs.
// Its methods are safe for concurrent use.
type Prober struct {
	config Config
	// within calls a function that opens a socket, in the network namespace of the host.
	within func(func() error) error
	// probe sends a shape to a peer and waits for the receipts: send.
	probe func(ctx context.Context, to *peer, s shape) outcome
	// minWait and maxWait bound the wait for a receipt.
	minWait, maxWait time.Duration

	diagnosing chan struct{} // has an element for each diagnosis
	// news has peers whose probes name a fault that is new here: their receipts prove it.
	news chan *peer

	mu        sync.Mutex // guards what follows
	peers     map[netip.Prefix]*peer
	byAddr    map[netip.Addr]*peer
	refreshed time.Time
	listed    []Peer  // by Config.Peers at the last refresh
	inOrder   []*peer // the same peers
	queue     []*peer // the rest of the round
}

// New returns a Prober; Run starts it.
func New(c Config) *Prober {
	p := &Prober{
		config: c, within: func(f func() error) error { return f() },
		minWait: 320 * time.Millisecond, maxWait: 2 * time.Second,
		diagnosing: make(chan struct{}, diagnosesAtOnce), news: make(chan *peer, visitsAtOnce),
		peers: make(map[netip.Prefix]*peer), byAddr: make(map[netip.Addr]*peer),
	}
	p.probe = p.send
	return p
}

// Results returns the current results by the peer's subnet.
func (p *Prober) Results() map[netip.Prefix]Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[netip.Prefix]Result, len(p.peers))
	for subnet, peer := range p.peers {
		all[subnet] = peer.result
	}
	return all
}

// Round returns the time in which each peer gets both checks.
func (p *Prober) Round() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return round(p.config.Interval, len(p.inOrder), p.config.cost())
}

// Run probes and answers until ctx ends, which returns nil. It returns an error if it
// cannot open or read its sockets.
func (p *Prober) Run(ctx context.Context) error {
	r := &responder{fault: p.faultOf, within: p.within}
	if err := p.within(func() error { return r.open(ctx, p.config.Locals) }); err != nil {
		return err
	}
	return p.runWith(ctx, r)
}

// runWith is Run with an open responder, which it closes.
func (p *Prober) runWith(ctx context.Context, r *responder) error {
	g, ctx := errgroup.WithContext(ctx)
	r.start(ctx, g)
	g.Go(func() error {
		p.schedule(ctx)
		return r.close() // the responder ends
	})
	return g.Wait()
}

// schedule checks the peers, evenly over the round, until ctx ends.
func (p *Prober) schedule(ctx context.Context) {
	var visits errgroup.Group
	visits.SetLimit(visitsAtOnce)
	defer func() { _ = visits.Wait() }() // visits have no error
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case from := <-p.news:
			visits.Go(func() error {
				p.probe(ctx, from, small)
				return nil
			})
		case <-timer.C:
			due, pause := p.next()
			timer.Reset(clock.UntilTick(pause))
			for _, to := range due {
				visits.Go(func() error {
					p.visit(ctx, to)
					return nil
				})
			}
		}
	}
}

// next returns the peers that are due now, and the pause before the next ones.
func (p *Prober) next() (due []*peer, pause time.Duration) {
	known := p.refresh()
	group, pause := pace(p.Round(), len(known))
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue = known
	}
	due = p.queue[:min(group, len(p.queue))]
	p.queue = p.queue[len(due):]
	return due, pause
}

// refresh updates the set of peers, and returns them in order.
func (p *Prober) refresh() []*peer {
	listed := p.config.Peers()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refreshed = time.Now()
	if slices.Equal(listed, p.listed) {
		return p.inOrder
	}
	peers, byAddr := make(map[netip.Prefix]*peer, len(listed)), make(map[netip.Addr]*peer, len(listed))
	all := make([]*peer, 0, len(listed))
	for _, l := range listed {
		if !p.config.localFor(l.Addr).IsValid() {
			continue
		}
		known := p.peers[l.Subnet]
		if known == nil || known.addr != l.Addr {
			known = &peer{subnet: l.Subnet, addr: l.Addr}
		}
		peers[l.Subnet], byAddr[l.Addr.Addr()] = known, known
		all = append(all, known)
	}
	p.peers, p.byAddr, p.listed, p.inOrder = peers, byAddr, listed, all
	return all
}

// faultOf returns the fault that our probes to a peer find; ok is false if no peer has the
// address. A peer that names a new fault is probed soon. Anybody can forge the source of
// a probe, but not a receipt.
func (p *Prober) faultOf(from netip.Addr, named byte) (l Layer, ok bool) {
	p.mu.Lock()
	known, stale := p.byAddr[from], time.Since(p.refreshed) >= refreshLimit
	p.mu.Unlock()
	if known == nil && stale { // a peer that joined after the last group of checks
		p.refresh()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if known = p.byAddr[from]; known == nil {
		return "", false
	}
	if theirs, _ := layerOf(named); theirs != "" && theirs != known.result.Rx.Layer && time.Since(known.asked) >= refreshLimit { // promise: news-are-asked-for
		select {
		case p.news <- known:
			known.asked = time.Now()
		default: // the next check asks as well
		}
	}
	return known.result.Tx.Layer, true
}

// note applies change to the result of a peer, and reports the difference.
func (p *Prober) note(of *peer, change func(*Result)) {
	p.mu.Lock()
	was := of.result
	change(&of.result)
	now, known := of.result, p.peers[of.subnet] == of
	p.mu.Unlock()
	if p.config.Changed == nil || !known {
		return
	}
	if was.Tx.Layer != now.Tx.Layer {
		p.config.Changed(Change{of.subnet, false, was.Tx.Layer, now.Tx.Layer})
	}
	if was.Rx.Layer != now.Rx.Layer {
		p.config.Changed(Change{of.subnet, true, was.Rx.Layer, now.Rx.Layer})
	}
}

func (p *Prober) setTx(of *peer, l Layer) {
	p.note(of, func(r *Result) {
		r.Known, r.Suspect, r.TxAt = true, false, time.Now()
		if r.Tx.Layer != l {
			r.Tx = Fault{l, time.Now()}
		}
	})
}

// setRx takes the fault of the other direction from a receipt.
func (p *Prober) setRx(of *peer, receipt header) {
	l, ok := layerOf(receipt.layer)
	if !ok {
		log.V(1).Infof("ignore unknown layer of fault peer=%v code=%d", of.subnet, receipt.layer)
		return
	}
	p.note(of, func(r *Result) {
		r.RxAt = time.Now()
		if r.Rx.Layer != l {
			r.Rx = Fault{l, time.Now()}
		}
	})
}

// dial connects in the network namespace of the host.
func (p *Prober) dial(ctx context.Context, d *net.Dialer, to string) (c net.Conn, err error) {
	err = p.within(func() error {
		c, err = d.DialContext(ctx, "tcp", to) // to is an address, not a name
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	return c, nil
}
