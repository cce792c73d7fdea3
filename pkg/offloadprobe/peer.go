package offloadprobe

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// suspicion is the number of checks that fail in a row before a diagnosis.
	suspicion = 2
	// faultPause is the number of intervals after which a peer with a fault is diagnosed
	// again, and healthyPause that of one without, as on a busy host. They double with each
	// diagnosis of the same result, up to maxPause.
	healthyPause, faultPause, maxPause = 1, 10, 40
)

// peer is a Prober's state of one peer. Prober.mu guards result, rtt and asked.
type peer struct {
	subnet netip.Prefix
	addr   netip.AddrPort
	result Result
	rtt    time.Duration
	asked  time.Time // about news

	visiting sync.Mutex // held during a visit; guards what follows
	checkTCP bool       // the kind of the last check
	// pause is the number of intervals between two diagnoses. diagnosed is the end of the
	// last one; zero before the first, and after the end of a fault.
	pause     int
	diagnosed time.Time
	failed    shape // the check that a peer with a fault has failed last
}

// visit checks a peer. It does nothing while another visit goes on.
func (p *Prober) visit(ctx context.Context, to *peer) {
	if !to.visiting.TryLock() {
		return
	}
	defer to.visiting.Unlock()
	if !p.answers(ctx, to) {
		return
	}
	r := p.resultOf(to)
	if !r.Suspect { // the check that has failed comes again
		to.checkTCP = !to.checkTCP
	}
	switch {
	case r.Tx.Layer != "":
		if !to.checkTCP { // this visit has both kinds, so every other one is enough
			p.verify(ctx, to)
		}
	case to.checkTCP:
		p.examine(ctx, to, tcpSegments)
	default:
		p.examine(ctx, to, udpCheck)
	}
}

// Recheck checks those peers now that have a fault to them, or all peers. It diagnoses
// peers without a fault where checks fail, diagnosesAtOnce at most; more of them become
// suspects. It returns when the results are there or ctx ends.
func (p *Prober) Recheck(ctx context.Context, all bool) {
	p.mu.Lock()
	var due []*peer
	for _, to := range p.peers {
		if all || to.result.Tx.Layer != "" {
			due = append(due, to)
		}
	}
	p.mu.Unlock()
	var visits errgroup.Group
	visits.SetLimit(visitsAtOnce)
	for _, to := range due {
		visits.Go(func() error {
			to.visiting.Lock()
			defer to.visiting.Unlock()
			switch {
			case !p.answers(ctx, to):
			case p.resultOf(to).Tx.Layer != "":
				p.verify(ctx, to)
			default:
				to.diagnosed, to.pause = time.Time{}, 0
				p.examine(ctx, to, tcpSegments)
				if !p.resultOf(to).Suspect {
					p.examine(ctx, to, udpCheck)
				}
			}
			return nil
		})
	}
	_ = visits.Wait() // visits have no error
}

func (p *Prober) resultOf(to *peer) Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return to.result
}

// check probes a peer until a probe is not lost, suspicion times at most.
func (p *Prober) check(ctx context.Context, to *peer, s shape) (result outcome) {
	for range suspicion {
		if result = p.probe(ctx, to, s); result != lost || ctx.Err() != nil {
			break
		}
	}
	return result
}

// narrow reports whether packets of the MTU are known not to reach a peer. The checks do
// not find that if super-packets pass: a bridge with a smaller MTU loses single packets.
func (p *Prober) narrow(to *peer) bool {
	if p.config.Reaches == nil {
		return false
	}
	size := p.config.Reaches(to.subnet)
	return size != 0 && size < p.config.MTU
}

// examine makes a check of a peer without a fault, and diagnoses it if the check fails.
func (p *Prober) examine(ctx context.Context, to *peer, s shape) {
	switch p.check(ctx, to, s) {
	case passed: // a fault ends by verify
		p.note(to, func(r *Result) { r.Known, r.Suspect, r.TxAt = true, false, time.Now() })
		if p.narrow(to) { // promise: narrow-path-is-diagnosed
			p.diagnoseIfDue(ctx, to)
		}
	case lost, unanswered, unreachable: // a broken checksum lets no connection through
		p.diagnoseIfDue(ctx, to)
	}
}

// firstFailed has the check that fails first in verify with the usual fault of a layer.
var firstFailed = map[Layer]shape{
	Checksum: smallChecksum, Segmentation: segments, TCPSegmentation: tcpSegments, UDPSegmentation: segments,
	ReceiveMerging: udpCheck, PathMTU: segments, ECN: udpCheck,
}

// verify ends a fault after both checks have passed twice, and shapes of UDP that stand
// for TCP where there is no connection. It does not if a SYN with a computed checksum is
// all that passes of TCP.
func (p *Prober) verify(ctx context.Context, to *peer) {
	answered := p.probe(ctx, to, small) == passed // both hosts learn the faults of the other
	reachable, checks := true, []shape{smallChecksum, segments, udpCheck, tcpSegments}
	if p.resultOf(to).Tx.Layer == PathMTU {
		checks = append(checks, full) // alone
	}
	for range 2 {
		for _, check := range checks {
			switch p.check(ctx, to, check) {
			case lost:
				if answered && p.check(ctx, to, small) == passed {
					p.note(to, func(r *Result) { r.TxAt = time.Now() })
				}
				p.diagnoseOther(ctx, to, check)
				return
			case unreachable:
				reachable = false
			case unanswered:
				reachable = false
				if p.check(ctx, to, tcpSYN) == passed {
					p.diagnoseOther(ctx, to, check)
					return
				}
			}
		}
	}
	if reachable || p.resultOf(to).Tx.Layer != TCPSegmentation {
		p.setTx(to, "")
		to.diagnosed, to.pause = time.Time{}, 0 // promise: end-of-a-fault-ends-its-pause
	}
}

// diagnoseOther is diagnoseIfDue for a peer with a fault that fails a check. If that is
// another check than before, the fault may be another one, and a diagnosis is due.
func (p *Prober) diagnoseOther(ctx context.Context, to *peer, failed shape) {
	if failed != to.failed { // promise: next-fault-is-named
		to.failed, to.diagnosed = failed, time.Time{}
	}
	p.diagnoseIfDue(ctx, to)
}

// diagnoseIfDue diagnoses a peer unless it has just been, with the same result. A peer
// that does not answer, as before its start, is not diagnosed. While diagnosesAtOnce
// others are, the peer is a suspect, and the next visit tries again: a fault of this
// host's device is one to all peers.
func (p *Prober) diagnoseIfDue(ctx context.Context, to *peer) {
	if ctx.Err() != nil {
		return
	}
	interval := p.config.Interval
	if !to.diagnosed.IsZero() && time.Since(to.diagnosed) < time.Duration(to.pause)*interval {
		return
	}
	if p.check(ctx, to, small) != passed { // promise: silence-is-no-diagnosis
		p.forgetRTT(to)
		return
	}
	select {
	case p.diagnosing <- struct{}{}:
		defer func() { <-p.diagnosing }()
	default:
		p.note(to, func(r *Result) { r.Suspect = r.Tx.Layer == "" })
		return
	}
	before := p.resultOf(to).Tx.Layer
	layer, known := diagnose(ctx, p.config.JoinsTCP != nil && p.config.JoinsTCP(), func(s shape) outcome { return p.probeInTurn(ctx, to, s) })
	if ctx.Err() != nil {
		return
	}
	if known {
		p.setTx(to, layer)
	} else {
		layer = before
		p.note(to, func(r *Result) { r.Suspect = false })
	}
	if layer != before {
		to.pause, to.failed = 0, firstFailed[layer]
		p.probe(ctx, to, small) // the peer learns it soon
	}
	least := healthyPause
	if known && layer != "" {
		least = faultPause
	}
	to.pause = min(max(2*to.pause, least), maxPause)
	to.diagnosed = time.Now()
}
