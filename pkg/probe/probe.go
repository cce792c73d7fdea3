package probe

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
)

// Config configures a Prober.
type Config struct {
	// Subnet is this host's; its first address is the source of probes.
	Subnet netip.Prefix
	// MTU is the largest packet that containers can send, in bytes.
	MTU int
	// Interval is the time between two probes of a peer. It is longer for many
	// peers: 30 s for 1,000.
	Interval time.Duration
	// Peers returns the subnets to probe, in order. It is called once a round.
	Peers func() []netip.Prefix
	// Changed, if not nil, is called when a peer falls silent, or answers again
	// after that. It must return soon, and must not call the Prober.
	Changed func(peer netip.Prefix, silent bool)
}

// Prober measures the path to each peer while Run runs.
type Prober struct {
	config Config
	open   func(source netip.Addr, id uint16) (socket, error)
	stamp  stamp

	mu    sync.Mutex // guards what follows
	peers map[netip.Prefix]*peer
	sent  map[uint16]outstanding
	seq   uint16
	large time.Time // of the last large probe
}

// socket sends probes and holds the replies.
type socket interface {
	send(message []byte, to netip.Addr) error
	receive() (datagram, error) // EAGAIN: there is none
	Close() error
}

// outstanding is a probe without an answer so far.
type outstanding struct {
	peer *peer
	to   netip.Addr
	at   time.Time
	size int // of a large probe; 0: a small one
}

// New returns a Prober; Run starts it.
func New(c Config) *Prober {
	return &Prober{
		config: c, stamp: newStamp(inet.Of(c.Subnet.Addr())),
		open:  func(source netip.Addr, id uint16) (socket, error) { return openSocket(source, id) },
		peers: make(map[netip.Prefix]*peer), sent: make(map[uint16]outstanding),
	}
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

// MTU returns the size of the largest packet that has reached a peer, 0 while it is not
// known.
func (p *Prober) MTU(peer netip.Prefix) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known := p.peers[peer]; known != nil {
		return known.result.MTU
	}
	return 0
}

// announce calls Changed if the peer was in the other state before. A peer that
// has left Peers is not announced.
func (p *Prober) announce(was bool, of *peer) {
	if p.config.Changed != nil && of.result.Silent != was && p.peers[of.subnet] == of {
		p.config.Changed(of.subnet, of.result.Silent)
	}
}

// Run probes until ctx ends, which returns nil. It returns an error if it cannot
// open a socket.
func (p *Prober) Run(ctx context.Context) error {
	s, err := p.open(p.config.Subnet.Addr(), p.stamp.id)
	if err != nil {
		return err
	}
	p.run(ctx, s)
	return s.Close()
}

// run probes the peers in bursts, evenly over the round.
func (p *Prober) run(ctx context.Context, s socket) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	expiry := time.NewTimer(timeout)
	defer expiry.Stop()
	var queue []*peer
	var burst int
	var pause time.Duration
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-expiry.C:
			p.collect(s)
		case <-tick.C:
			p.collect(s)
			if len(queue) == 0 {
				queue = p.refresh()
				burst, pause = pace(p.config.Interval, len(queue))
			}
			due := queue[:min(burst, len(queue))]
			queue = queue[len(due):]
			if p.burst(s, due) || pause > burstEvery {
				expiry.Reset(timeout)
			}
			next := clock.UntilTick(pause)
			if first { // a whole pause at least, so that the first round is not too short
				first = false
				next += pause
			}
			tick.Reset(next)
		}
	}
}

// burst sends the due probes. It returns true if an answer may change a peer's
// state; then replies are collected before the next burst.
func (p *Prober) burst(s socket, due []*peer) (collectSoon bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, to := range due {
		p.send(s, outstanding{peer: to, to: to.target(), at: now})
		collectSoon = collectSoon || to.lostInRow() > 0 || to.result.RTT == 0
	}
	p.measure(s, due, now)
	return collectSoon
}

// measure sends a large probe if one is due, to the peer with the oldest result.
func (p *Prober) measure(s socket, due []*peer, now time.Time) {
	if now.Sub(p.large) < largeSpacing {
		return
	}
	var to *peer
	for _, peer := range due {
		if peer.lostInRow() == 0 && peer.result.RTT != 0 && !peer.size.waiting && (to == nil || peer.size.settled.Before(to.size.settled)) {
			to = peer
		}
	}
	if to == nil {
		return
	}
	if size := to.size.next(now); size != 0 {
		p.large = now
		to.size.waiting = true
		p.send(s, outstanding{peer: to, to: to.target(), at: now, size: size})
	}
}

// refresh updates the set of peers and returns them as a queue. It begins after
// our own subnet, so that hosts in step do not probe the same peer at once.
func (p *Prober) refresh() []*peer {
	subnets := p.config.Peers()
	p.mu.Lock()
	defer p.mu.Unlock()
	peers := make(map[netip.Prefix]*peer, len(subnets))
	queue := make([]*peer, 0, len(subnets))
	for _, s := range subnets {
		known := p.peers[s]
		if known == nil {
			known = newPeer(s, p.config.MTU)
		}
		if peers[s] == nil {
			peers[s] = known
			queue = append(queue, known)
		}
	}
	p.peers = peers
	after := slices.IndexFunc(queue, func(to *peer) bool { return p.config.Subnet.Addr().Less(to.subnet.Addr()) })
	return append(queue[max(0, after):], queue[:max(0, after)]...)
}

// collect reads the replies, and then counts the expired probes as lost.
func (p *Prober) collect(s socket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range maxReplies {
		d, err := s.receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil { // an ICMP error about an earlier request
			log.V(2).Infof("receive echo replies: %v", err)
			continue
		}
		p.answer(d, time.Now())
	}
	now := time.Now()
	for seq, o := range p.sent {
		if now.Sub(o.at) < timeout {
			continue
		}
		delete(p.sent, seq)
		was := o.peer.result.Silent
		o.missed(now)
		p.announce(was, o.peer)
	}
}

func (o outstanding) missed(now time.Time) {
	if o.size == 0 {
		o.peer.missed(now)
		return
	}
	// A silent peer's loss does not depend on the size.
	if o.peer.lostInRow() > 0 {
		o.peer.size.waiting = false
		return
	}
	if mtu := o.peer.size.lost(o.size, now); mtu != 0 {
		o.peer.result.MTU = mtu
	}
}

func (p *Prober) send(s socket, o outstanding) {
	p.seq++
	packet, err := p.stamp.request(p.seq, o.size)
	if err == nil {
		err = s.send(packet, o.to)
	}
	if err != nil { // no route, device down: it counts as lost after timeout
		log.V(2).Infof("send probe to=%v size=%d: %v", o.to, max(o.size, SmallSize(p.stamp.family)), err)
	}
	p.sent[p.seq] = o
}

// answer handles one message; p.mu is held.
func (p *Prober) answer(d datagram, now time.Time) {
	seq, size, ok := p.stamp.reply(d.message)
	if !ok {
		return
	}
	o, ok := p.sent[seq]
	if !ok || d.from != o.to || size != max(o.size, SmallSize(p.stamp.family)) {
		return
	}
	rtt, ok := o.roundTrip(d.at, now)
	if ok && rtt > timeout {
		return // too late: the probe counts as lost
	}
	delete(p.sent, seq)
	if o.size == 0 {
		was := o.peer.result.Silent
		if !ok && o.peer.result.RTT != 0 {
			rtt = o.peer.result.RTT // the last known one
		}
		o.peer.answered(now, rtt)
		p.announce(was, o.peer)
		return
	}
	if mtu := o.peer.size.passed(o.size, now); mtu != 0 {
		o.peer.result.MTU = mtu
	}
}

// roundTrip returns the round trip of a probe. at is the answer's arrival on the
// wall clock, now the time of collect. ok is false if the clock was set or the
// kernel did not stamp the answer; then rtt is the upper bound.
func (o outstanding) roundTrip(at, now time.Time) (rtt time.Duration, ok bool) {
	most := now.Sub(o.at)
	rtt = at.Sub(o.at.Round(0)) // at has no monotonic clock
	if rtt <= 0 || rtt > most {
		return most, false
	}
	return rtt, true
}
