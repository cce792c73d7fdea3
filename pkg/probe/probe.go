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
)

// Config is what a Prober is made from.
type Config struct {
	// Subnet is ours; its first address is the source of probes.
	Subnet netip.Prefix
	// MTU is the largest packet that containers may send, in bytes.
	MTU int
	// Interval is how often each peer is probed; less often where there are
	// many: 1,000 peers every 30 s.
	Interval time.Duration
	// Peers gives the subnets to probe, in order; it is called once a round.
	Peers func() []netip.Prefix
	// Changed, if not nil, is called when a peer falls silent, or answers again
	// after that. It must return soon, and must not call the Prober.
	Changed func(peer netip.Prefix, silent bool)
}

// Prober measures the way to each peer while Run runs.
type Prober struct {
	config Config
	open   func(source netip.Addr, id uint16) (endpoint, error)
	stamp  stamp

	mu    sync.Mutex // guards what follows
	peers map[netip.Prefix]*peer
	sent  map[uint16]flight
	seq   uint16
	large time.Time // when the last large probe left
}

// endpoint takes probes to the peers and keeps the answers.
type endpoint interface {
	send(message []byte, to netip.Addr) error
	receive() (datagram, error) // EAGAIN: nothing is there
	Close() error
}

// flight is a probe under way.
type flight struct {
	peer *peer
	to   netip.Addr
	at   time.Time
	size int // of a large probe; 0: a small one
}

// New makes a Prober.
func New(c Config) *Prober {
	return &Prober{
		config: c, stamp: newStamp(),
		open:  func(source netip.Addr, id uint16) (endpoint, error) { return openUnpolled(source, id) },
		peers: make(map[netip.Prefix]*peer), sent: make(map[uint16]flight),
	}
}

// Results is what is known now, by the peer's subnet.
func (p *Prober) Results() map[netip.Prefix]Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[netip.Prefix]Result, len(p.peers))
	for subnet, peer := range p.peers {
		r := peer.result
		r.Sent = peer.sent
		for bits := peer.lost; bits != 0; bits &= bits - 1 {
			r.Lost++
		}
		all[subnet] = r
	}
	return all
}

// announce calls Changed if the peer was in the other state before. A peer that
// has left Peers is not announced.
func (p *Prober) announce(was bool, of *peer) {
	if p.config.Changed != nil && of.result.Silent != was && p.peers[of.subnet] == of {
		p.config.Changed(of.subnet, of.result.Silent)
	}
}

// Run probes until ctx ends, which gives nil; an error if there can be no
// socket for it.
func (p *Prober) Run(ctx context.Context) error {
	c, err := p.open(p.config.Subnet.Addr(), p.stamp.id)
	if err != nil {
		return err
	}
	p.run(ctx, c)
	return c.Close()
}

// run probes one peer after the other, in bursts, evenly over the round.
func (p *Prober) run(ctx context.Context, c endpoint) {
	tick := time.NewTimer(0)
	defer tick.Stop()
	look := time.NewTimer(timeout)
	defer look.Stop()
	var queue []*peer
	var burst int
	var pause time.Duration
	for first := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			p.collect(c)
		case <-tick.C:
			p.collect(c)
			if len(queue) == 0 {
				queue = p.refresh()
				burst, pause = pace(p.config.Interval, len(queue))
			}
			due := queue[:min(burst, len(queue))]
			queue = queue[len(due):]
			if p.burst(c, due) || pause > burstEvery {
				look.Reset(timeout)
			}
			next := clock.UntilTick(pause)
			if first { // a whole pause at least, or the first round would be too short
				first = false
				next += pause
			}
			tick.Reset(next)
		}
	}
}

// burst sends the probes that are due. It returns whether the answer of one of
// them may be news. Others are looked for before the next burst leaves.
func (p *Prober) burst(c endpoint, due []*peer) (news bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for _, to := range due {
		p.emit(c, flight{peer: to, to: to.target(), at: now})
		news = news || to.inRow > 0 || to.result.RTT == 0
	}
	p.measure(c, due, now)
	return news
}

// measure sends a large probe if one is due: to the peer whose turn was the
// longest ago, or the same ones would be measured each time and others never.
func (p *Prober) measure(c endpoint, due []*peer, now time.Time) {
	if now.Sub(p.large) < apartLarge {
		return
	}
	var to *peer
	for _, peer := range due {
		if peer.inRow == 0 && peer.result.RTT != 0 && !peer.size.waiting && (to == nil || peer.size.settled.Before(to.size.settled)) {
			to = peer
		}
	}
	if to == nil {
		return
	}
	if size := to.size.next(now); size != 0 {
		p.large = now
		to.size.waiting = true
		p.emit(c, flight{peer: to, to: to.target(), at: now, size: size})
	}
}

// refresh takes the present set of peers over. The queue begins with the peer
// next to us, so that many hosts in step do not all probe the same ones at once.
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

// collect takes the answers that have come, and then counts as lost what has
// been under way for too long.
func (p *Prober) collect(c endpoint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range collectMost {
		d, err := c.receive()
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
	for seq, f := range p.sent {
		if now.Sub(f.at) < timeout {
			continue
		}
		delete(p.sent, seq)
		was := f.peer.result.Silent
		f.missed(now)
		p.announce(was, f.peer)
	}
}

func (f flight) missed(now time.Time) {
	if f.size == 0 {
		f.peer.missed(now)
		return
	}
	// Of a silent peer, the size of packets tells nothing.
	if f.peer.inRow > 0 {
		f.peer.size.waiting = false
		return
	}
	if mtu := f.peer.size.stuck(f.size, now); mtu != 0 {
		f.peer.result.MTU = mtu
	}
}

func (p *Prober) emit(c endpoint, f flight) {
	p.seq++
	packet, err := p.stamp.request(p.seq, f.size)
	if err == nil {
		err = c.send(packet, f.to)
	}
	if err != nil { // no route, device down: it counts as lost when its time is over
		log.V(2).Infof("send probe to=%v size=%d: %v", f.to, max(f.size, smallLen), err)
	}
	p.sent[p.seq] = f
}

// answer takes one message; p.mu is held.
func (p *Prober) answer(d datagram, now time.Time) {
	seq, size, ok := p.stamp.reply(d.message)
	if !ok {
		return
	}
	f, ok := p.sent[seq]
	if !ok || d.from != f.to || size != max(f.size, smallLen) {
		return
	}
	rtt, ok := f.roundTrip(d.at, now)
	if ok && rtt > timeout {
		return // it is lost, as those whose answer never comes
	}
	delete(p.sent, seq)
	if f.size == 0 {
		was := f.peer.result.Silent
		if !ok && f.peer.result.RTT != 0 {
			rtt = f.peer.result.RTT // the last one known
		}
		f.peer.answered(now, rtt)
		p.announce(was, f.peer)
		return
	}
	if mtu := f.peer.size.passed(f.size, now); mtu != 0 {
		f.peer.result.MTU = mtu
	}
}

// roundTrip is how long f took, if its answer came at that time on the wall and
// was found now. ok is false where that cannot be, as the clock was set or the
// kernel did not tell; it is what has passed at most then.
func (f flight) roundTrip(at, now time.Time) (rtt time.Duration, ok bool) {
	most := now.Sub(f.at)
	rtt = at.Sub(f.at.Round(0)) // without the monotonic clock, which the kernel does not tell
	if rtt <= 0 || rtt > most {
		return most, false
	}
	return rtt, true
}
