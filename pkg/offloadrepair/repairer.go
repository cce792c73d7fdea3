package offloadrepair

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/offloadprobe"
	"github.com/coreos/flannel/pkg/ratelog"
)

const (
	// firstTrial is the time after which a switch is turned on, to find out whether the
	// fault is gone. It doubles after each trial that finds the fault, up to maxTrial. It is
	// at least trialRounds of the probes, since a trial may take verdictRounds.
	firstTrial, maxTrial = 10 * time.Minute, 24 * time.Hour
	trialRounds          = 8 * verdictRounds
	// verdictRounds is the number of rounds after which the peers' receipts have what a
	// switch of the receiver has changed.
	verdictRounds = 3
)

// Prober is an offloadprobe.Prober.
type Prober interface {
	Results() map[netip.Prefix]offloadprobe.Result
	Recheck(ctx context.Context, all bool)
	Round() time.Duration
}

// Config configures a Repairer.
type Config struct {
	Prober   Prober
	Features Features
	// Devices returns those on the path to a peer.
	Devices func(peer netip.Prefix) (Devices, error)
	// StateDir is the folder of the note.
	StateDir string
	// Interval is the Prober's.
	Interval time.Duration
}

// Repairer turns the switch that ends a fault, while Run runs. Its other methods are
// safe for concurrent use.
type Repairer struct {
	config Config
	path   string
	trial  time.Duration // until the next trial
	wake   chan struct{}

	// These are Run's. note is nil while no switch is turned.
	state    repairState
	note     *Note
	since    time.Time          // the last turn of the switch, in either direction
	deadline time.Time          // of the result, or until the trial
	tried    []Switch           // those that did not end the fault
	failing  offloadprobe.Layer // the fault that tried is about

	mu  sync.Mutex
	off *Note // the note of a switch that is off, nil for none; guarded by mu
}

// repairState is the state of the one switch.
type repairState int

const (
	// idle: no switch is turned.
	idle repairState = iota
	// resumed: an earlier run has turned the switch, and may not have learned the result.
	resumed
	// turned: the switch is off, and the result is not known yet.
	turned
	// kept: the switch is off and has ended the fault.
	kept
	// onTrial: the switch is on, and it is not known yet whether the fault is gone.
	onTrial
)

// New returns a Repairer; Run starts it.
func New(c Config) *Repairer {
	return &Repairer{config: c, path: NotePath(c.StateDir), trial: firstTrial, wake: make(chan struct{}, 1)}
}

// Changed makes Run look at the Prober's results soon.
func (r *Repairer) Changed() {
	select {
	case r.wake <- struct{}{}:
	default: // a wake-up is pending
	}
}

// Turned returns the switch that is off, nil for none.
func (r *Repairer) Turned() *Note {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.off == nil {
		return nil
	}
	n := *r.off
	return &n
}

// Run repairs until ctx ends, and returns nil. A switch that is off then stays off:
// the kernel carries packets without this process.
func (r *Repairer) Run(ctx context.Context) error {
	n, err := readNote(r.path)
	if err != nil {
		log.Warningf("go without the note: %v", err)
	}
	if n != nil {
		r.note, r.state, r.failing = n, resumed, n.Layer
	}
	for {
		for again := true; again && ctx.Err() == nil; {
			again = r.step(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-time.After(clock.UntilTick(r.config.Interval / 2)):
		}
	}
}

// step makes one change of the state. again is true if the next step is due now.
func (r *Repairer) step(ctx context.Context) (again bool) {
	layer, peer := r.problem(time.Time{})
	if r.state == idle {
		if layer != r.failing {
			r.failing, r.tried = layer, nil
		}
		return layer != "" && r.try(ctx, layer, peer)
	}
	n := r.note
	at, err := positionOf(r.config.Features, n.Switch)
	switch {
	case err != nil:
		ratelog.Warningf("go on with a switch that is turned off layer=%s: %v", n.Layer, err)
		return false
	case at == gone:
		log.Infof("the device of a switch that was turned off is gone layer=%s device=%s", n.Layer, n.Device)
		r.forget()
		return true
	}
	if at == off && r.state != onTrial {
		r.show(n)
	}
	if r.state == resumed && !r.answered() {
		return false
	}
	if at == on && r.state != onTrial { // promise: note-is-of-a-switch-that-is-off
		r.tryOn(ctx, n) // another turned it, or the device was made anew
		return true
	}
	return r.stepOf(ctx, n, layer == n.Layer)
}

// stepOf is step for a switch that is in the position of the state. failing is true if
// the fault is there, as far as the peers have answered.
func (r *Repairer) stepOf(ctx context.Context, n *Note, failing bool) (again bool) {
	late := !time.Now().Before(r.deadline)
	if r.state == turned && late || r.state == onTrial {
		// A peer that is away, or a link that the turn has reset, confirms no fault.
		layer, _ := r.problem(r.since)
		failing = layer == n.Layer
		if !failing && !(late && r.confirmed(n.Layer)) { // promise: silence-is-no-verdict
			return false
		}
	}
	switch r.state {
	case resumed:
		r.state = turned
		r.await(ctx, n.Layer, true)
		return true
	case turned:
		switch {
		case !failing: // promise: switch-that-helps-is-kept
			r.state, r.deadline = kept, r.nextTrial()
			log.Warningf("fault of an offload is ended by a switch layer=%s command=%q", n.Layer, n.Off())
		case late:
			return r.turnBack(n)
		}
	case kept:
		if late {
			r.beginTrial(ctx, n)
			return r.state == onTrial
		}
	case onTrial:
		switch {
		case failing:
			if !r.turn(ctx, n) {
				return false // the next step repeats it
			}
			r.trial = min(2*r.trial, maxTrial)
			return true
		case late: // promise: switch-is-turned-back
			log.Infof("fault of an offload is gone, the switch is on again layer=%s command=%q", n.Layer, n.On())
			r.forget()
		}
	}
	return false
}

// answered reports whether the results of a peer are known.
func (r *Repairer) answered() bool {
	for _, result := range r.config.Prober.Results() {
		if result.Known {
			return true
		}
	}
	return false
}

// confirmed reports whether a peer has answered a check since the last turn of the
// switch, or for a layer of the receiver has sent a receipt.
func (r *Repairer) confirmed(l offloadprobe.Layer) bool {
	for _, result := range r.config.Prober.Results() {
		at := result.TxAt
		if AtReceiver(l) {
			at = result.RxAt
		}
		if !at.Before(r.since) {
			return true
		}
	}
	return false
}

// problem returns the layer of a fault that at least half of the peers of one family
// share, and one of these. A fault with fewer of them is the peer's or the path's. Peers
// with a fault that nothing has confirmed since a time do not count.
func (r *Repairer) problem(since time.Time) (worst offloadprobe.Layer, peer netip.Prefix) {
	results := r.config.Prober.Results()
	most := 0
	for _, f := range inet.Families {
		if l, p, n := commonFault(results, f, since); n > most {
			worst, peer, most = l, p, n
		}
	}
	return worst, peer
}

// commonFault returns the layer of a fault that at least half of the peers of a family
// share, one of these, and their number; 0 if there is no such fault. Suspects, and peers
// with a fault that was last confirmed before since, count for neither side.
func commonFault(results map[netip.Prefix]offloadprobe.Result, f inet.Family, since time.Time) (worst offloadprobe.Layer, peer netip.Prefix, n int) {
	count := make(map[offloadprobe.Layer]int)
	with := make(map[offloadprobe.Layer]netip.Prefix)
	known := 0
	for subnet, result := range results {
		if inet.Of(subnet.Addr()) != f { // promise: families-have-faults-apart
			continue
		}
		l, at := result.Tx.Layer, result.TxAt
		if AtReceiver(l) { // the peer's to repair
			l = ""
		}
		if AtReceiver(result.Rx.Layer) {
			l, at = result.Rx.Layer, result.RxAt
		}
		if l != "" && at.Before(since) {
			continue
		}
		if result.Known && !result.Suspect { // promise: suspects-are-not-healthy
			known++
		}
		if len(features[l]) > 0 {
			count[l]++
			with[l] = subnet
		}
	}
	for l, n := range count {
		if 2*n >= known && (worst == "" || n > count[worst] || n == count[worst] && l < worst) {
			worst = l
		}
	}
	return worst, with[worst], count[worst]
}

// try turns the next candidate off.
func (r *Repairer) try(ctx context.Context, layer offloadprobe.Layer, peer netip.Prefix) (again bool) {
	devices, err := r.config.Devices(peer)
	if err != nil {
		ratelog.Warningf("repair fault of an offload layer=%s: %v", layer, err)
		return false
	}
	all, err := Candidates(r.config.Features, layer, devices)
	if err != nil {
		ratelog.Warningf("repair fault of an offload layer=%s: %v", layer, err)
		return false
	}
	for _, s := range all {
		if !slices.Contains(r.tried, s) {
			return r.turn(ctx, &Note{Switch: s, Layer: layer, Since: time.Now().Round(0), Boot: clock.Now().Boot})
		}
	}
	if len(r.tried) > 0 {
		ratelog.Warningf("no switch ends the fault of an offload layer=%s tried=%v", layer, r.tried)
	}
	return false
}

// turn notes a switch and turns it off. Without a note it turns nothing, and a later step
// repeats it. A new candidate that cannot be turned off does not end the fault. One on
// trial does, so a later step repeats it.
func (r *Repairer) turn(ctx context.Context, n *Note) (again bool) {
	if err := n.write(r.path); err != nil { // promise: note-fails-no-switch
		ratelog.Warningf("repair fault of an offload layer=%s: %v", n.Layer, err)
		return false
	}
	r.note = n
	if err := r.config.Features.Switch(n.Device, n.Feature, false); err != nil {
		ratelog.Warningf("repair fault of an offload layer=%s: %v", n.Layer, err)
		if r.state == onTrial {
			return false
		}
		r.tried = append(r.tried, n.Switch)
		r.forget()
		return true
	}
	log.Warningf("turn off a switch because of a fault of an offload layer=%s command=%q", n.Layer, n.Off())
	r.state = turned
	r.show(n)
	r.await(ctx, n.Layer, false)
	return true
}

// turnBack turns a switch on that did not help. If that fails, the note remains and the
// next step repeats it, unless the switch is on or gone all the same.
func (r *Repairer) turnBack(n *Note) (back bool) {
	if err := r.config.Features.Switch(n.Device, n.Feature, true); err != nil {
		ratelog.Warningf("turn a switch back that did not end the fault layer=%s command=%q: %v", n.Layer, n.On(), err)
		if p, err := positionOf(r.config.Features, n.Switch); err != nil || p == off {
			return false
		}
	} else {
		log.Warningf("turn a switch back that did not end the fault layer=%s command=%q", n.Layer, n.On())
	}
	r.tried = append(r.tried, n.Switch)
	r.forget()
	return true
}

// nextTrial is the time of the next trial.
func (r *Repairer) nextTrial() time.Time {
	return time.Now().Add(max(r.trial, trialRounds*r.config.Prober.Round()))
}

// beginTrial turns the switch on while the note remains.
func (r *Repairer) beginTrial(ctx context.Context, n *Note) {
	if err := r.config.Features.Switch(n.Device, n.Feature, true); err != nil {
		ratelog.Warningf("find out whether the fault is gone: %v", err)
		r.deadline = r.nextTrial()
		return
	}
	r.tryOn(ctx, n)
}

// tryOn finds out whether the fault is there with the switch on.
func (r *Repairer) tryOn(ctx context.Context, n *Note) {
	r.state = onTrial
	r.show(nil)
	r.await(ctx, n.Layer, true)
}

// await sets the deadline of the result of a turn, and probes now where this host's
// probes give it.
func (r *Repairer) await(ctx context.Context, l offloadprobe.Layer, all bool) {
	r.since = time.Now()
	if AtReceiver(l) {
		r.deadline = time.Now().Add(verdictRounds * r.config.Prober.Round())
		return
	}
	r.config.Prober.Recheck(ctx, all)
	r.deadline = time.Now()
}

// forget ends the state of a switch that is on.
func (r *Repairer) forget() {
	r.state, r.note = idle, nil
	r.show(nil)
	if err := removeNote(r.path); err != nil {
		ratelog.Warningf("%v", err)
	}
}

// show makes Turned return a note.
func (r *Repairer) show(n *Note) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.off = n
}
