package daemon

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/subnet/kube"
)

const (
	// lastingFault is how long the network must be incomplete before its Node shows
	// it: pods that are there go on, and a taint for each short fault would move them.
	lastingFault = 30 * time.Second
	// nodeInterval is how often the Node is compared with the state.
	nodeInterval = 2 * time.Second
	// nodePause is the least time between two messages for the Node.
	nodePause = 10 * time.Second
)

// cluster is the part of kube.Store that a nodeReporter needs.
type cluster interface {
	SetCondition(context.Context, kube.Condition) error
	AddEvent(context.Context, kube.Event) error
	OwnUID() string
}

// nodeReporter shows in Kubernetes whether the network of this host is complete: in
// the condition NetworkUnavailable of its Node, and in the Node's events.
type nodeReporter struct {
	// cluster returns the store; nil before it is open. It is nil outside of Kubernetes.
	cluster func() cluster
	// condition is -set-node-network-unavailable.
	condition bool

	mu    sync.Mutex // guards what follows
	fault string     // why the network is not complete; "" if it is
	since time.Time  // of the first note with a fault, or without one
}

// newNodeReporter returns a nodeReporter to which ob gives each state.
func newNodeReporter(o *Options, s *state, ob *observer) *nodeReporter {
	n := &nodeReporter{condition: o.nodeCondition}
	if !o.store.Kube.Enabled {
		return n
	}
	ob.note = n.note
	n.cluster = func() cluster {
		if c := s.get().store.Cluster; c != nil {
			return c
		}
		return nil
	}
	return n
}

// note takes the present state. It does not wait.
func (n *nodeReporter) note(s status.Snapshot) {
	fault := ""
	if len(s.NotReady) > 0 {
		fault = s.NotReady[0]
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.since.IsZero() || (fault == "") != (n.fault == "") {
		n.since = time.Now()
	}
	n.fault = fault
}

// wanted returns what the Node is to show; false while that is not known: at a
// start, and during a short fault.
func (n *nodeReporter) wanted(now time.Time) (kube.Condition, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.since.IsZero():
		return kube.Condition{}, false
	case n.fault == "":
		return kube.Condition{Message: "Flannel is running on this node"}, true
	case now.Sub(n.since) < lastingFault: // promise: short-fault-is-no-taint
		return kube.Condition{}, false
	}
	return kube.Condition{Unavailable: true, Message: n.fault}, true
}

// Run writes condition and events until ctx ends. A failed write is repeated after
// a growing pause. A Node that was created anew gets them again.
func (n *nodeReporter) Run(ctx context.Context) error {
	if n.cluster == nil {
		<-ctx.Done()
		return nil
	}
	pauses := backoff.New()
	pauses.MaxInterval = time.Minute
	type shown struct {
		kube.Condition
		uid string
	}
	var done shown
	next := time.Time{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-time.After(clock.UntilTick(nodeInterval)):
			c := n.cluster()
			want, known := n.wanted(now)
			if c == nil || !known || now.Before(next) {
				continue
			}
			show := shown{want, c.OwnUID()}
			if show == done {
				continue
			}
			if err := n.show(ctx, c, want); err != nil {
				next = now.Add(pauses.NextBackOff())
				ratelog.Warningf("%v", err)
				continue
			}
			pauses.Reset()
			done, next = show, now.Add(nodePause)
		}
	}
}

// show writes one state. An event that cannot be added is logged: the service
// account may lack the right, and the condition has the same text.
func (n *nodeReporter) show(ctx context.Context, c cluster, want kube.Condition) error {
	if n.condition {
		if err := c.SetCondition(ctx, want); err != nil {
			return fmt.Errorf("set condition NetworkUnavailable: %w", err)
		}
	}
	e := kube.Event{Reason: "FlannelReady", Message: want.Message}
	if want.Unavailable {
		e = kube.Event{Warning: true, Reason: "FlannelNotReady", Message: want.Message}
	}
	if err := c.AddEvent(ctx, e); err != nil {
		ratelog.Warningf("%v", err)
	}
	return nil
}
