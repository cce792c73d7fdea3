package daemon

import (
	"context"
	"errors"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/uplink"
)

// supervisor runs a network for the present uplink. When the uplink changes, it
// sets up another network with the same lease.
type supervisor struct {
	state  *state
	joiner *joiner
	runner *runner
	member *membership
}

// Run runs networks, one after the other, until ctx ends or one fails. Once a
// network has run, one that cannot be set up for another uplink is no failure: the
// next change may make it possible, and Run keeps the lease until then.
func (s *supervisor) Run(ctx context.Context) error {
	pauses := backoff.New()
	var next *uplink.Uplink // the uplink to set the network up for; nil for the present one
	for ranBefore := false; ; {
		err := error(nil)
		if next != nil {
			err = s.joiner.rejoin(ctx, s.member, *next)
		}
		if err == nil {
			next = nil
			err = s.runner.run(ctx, s.member)
		}
		setup := (*networkSetupError)(nil)
		if ranBefore && ctx.Err() == nil && errors.As(err, &setup) { // promise: unusable-uplink-keeps-lease
			err = s.keepLease(ctx, pauses.NextBackOff(), setup)
		}
		change := (*uplinkChangedError)(nil)
		switch {
		case ctx.Err() != nil:
			return err
		case errors.Is(err, backend.ErrGone):
			log.Warningf("make the network anew subnet=%v reason=%q", s.member.lease.Subnet, err)
			same := s.state.get().uplink
			next, ranBefore = &same, true
		case errors.As(err, &change):
			log.Infof("make the network anew subnet=%v reason=%q", s.member.lease.Subnet, change)
			next, ranBefore = &change.to, true
			pauses.Reset()
		case err != nil:
			return err
		}
	}
}

// keepLease renews the lease without a network: for pause (nil), or until the
// uplink changes (*uplinkChangedError) or the lease is lost (subnet.ErrLost).
func (s *supervisor) keepLease(ctx context.Context, pause time.Duration, reason error) error {
	m := s.member
	log.Warningf("make the network anew: failed, keep the lease and try again subnet=%v in=%v reason=%q",
		m.lease.Subnet, pause.Round(time.Millisecond), reason)
	s.state.update(func(s *snapshot) { s.uplinkProblem = reason.Error() })
	limited, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	err := runTogether(limited, m.renew, s.runner.watchUplink)
	m.lease = m.manager.Status().Lease
	return s.runner.removeIfLost(ctx, m, err)
}
