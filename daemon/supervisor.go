package daemon

import (
	"context"
	"errors"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/uplink"
)

// steadyAfter is how long a device must last. One that is deleted earlier is made
// again only after a pause: a program that deletes it each time costs little then.
const steadyAfter = time.Minute

// supervisor runs a network for the present uplink. When the uplink changes, it
// sets up another network with the same lease.
type supervisor struct {
	state  *state
	joiner *joiner
	runner *runner
	member *membership
	// changed is called before each network but the first: the lease or the
	// configuration may be another.
	changed func(ctx context.Context, m *membership) error
}

// Run runs networks, one after the other, until ctx ends or one fails. If the first
// one cannot be set up, Run fails. It keeps the lease if a later one cannot: the
// next change of the uplink may make it possible.
func (s *supervisor) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, s.runner.discard()) }()
	pauses := backoff.New()
	var deleted time.Time // the last time that the device was deleted
	err = s.runner.run(ctx, s.member)
	for first := true; ; first = false {
		gone := errors.Is(err, backend.ErrGone)
		pause := !first && isSetupError(err)
		if gone {
			pause = time.Since(deleted) < steadyAfter
			deleted = time.Now()
		}
		if pause && ctx.Err() == nil { // promise: unusable-uplink-keeps-lease
			err = s.keepLease(ctx, pauses.NextBackOff(), err)
			gone = false
		}
		var to []uplink.Uplink
		change, changed := errors.AsType[*uplinkChangedError](err)
		switch {
		case ctx.Err() != nil:
			return err
		case changed:
			to = append(to, change.to)
			pauses.Reset()
		case isAdapted(err):
			pauses.Reset()
		case err != nil && !gone:
			return err
		}
		if err != nil {
			log.Warningf("make the network anew subnet=%s reason=%q", s.member.lease.Subnets(), err)
			s.state.update(func(p *progress) { p.replaced = "making the network anew: " + err.Error() })
		}
		if err = s.joiner.rejoin(ctx, s.member, to...); err != nil {
			continue
		}
		if err = s.changed(ctx, s.member); err == nil {
			err = s.runner.run(ctx, s.member)
		}
	}
}

func isSetupError(err error) bool {
	_, ok := errors.AsType[*networkSetupError](err)
	return ok
}

// keepLease renews the lease without a network: for pause (nil), or until the
// uplink changes (*uplinkChangedError) or the lease is lost (subnet.ErrLost).
func (s *supervisor) keepLease(ctx context.Context, pause time.Duration, reason error) error {
	m := s.member
	ratelog.Warningf("make the network anew: failed, keep the lease and try again subnet=%s reason=%q", m.lease.Subnets(), reason)
	if isSetupError(reason) {
		s.runner.noteUplink(s.state.get().outside()[0], reason)
	}
	if err := s.runner.discard(); err != nil {
		log.Warningf("close the network before: %v", err)
	}
	limited, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	return s.runner.removeIfLost(ctx, m, s.joiner.adapt(ctx, m, runTogether(limited, m.renew, s.runner.watchUplinks(m))))
}
