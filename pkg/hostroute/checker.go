package hostroute

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/reconcile"
	"github.com/coreos/flannel/pkg/rtnl"
)

const (
	// checkEvery is the period of checks without an announcement.
	checkEvery = 5 * time.Minute
	// checkInterval and checkBurst bound the checks that announcements cause.
	checkInterval = time.Second
	checkBurst    = 3
	// portion is how many subnets are looked up at a time, a few milliseconds.
	// Then a pause follows, so that ten thousand peers take 1/dutyCycle of a
	// processor.
	portion   = 100
	dutyCycle = 100
	minPause  = 10 * time.Millisecond
)

// resolver is what a Checker needs of a Resolver.
type resolver interface {
	Own() error
	Peer(subnet netip.Prefix) error
}

// Checker finds the peers whose packets another program's route takes. Its methods
// are safe for concurrent use.
type Checker struct {
	resolver resolver
	listener *reconcile.Listener
	closer   func()
	peers    func() []netip.Prefix
	changed  reconcile.Signal

	mu    sync.Mutex // guards what follows
	stale bool       // routes or rules have changed
	full  time.Time  // of the last lookup of all
	// known are the peers that were looked up; the value is the problem or nil.
	known map[netip.Prefix]error
	err   error // the result of Check
}

// NewChecker returns a Checker for a network of one family, in the network namespace of
// the calling thread. Own is this host's subnet in network; peers returns the subnets
// of the others. The caller calls Run, then Close.
func NewChecker(network, own netip.Prefix, peers func() []netip.Prefix) (*Checker, error) {
	r, err := Open(network, own)
	if err != nil {
		return nil, err
	}
	groups := []int{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE}
	if r.family == inet.IPv6 {
		groups = []int{unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE}
	}
	l, err := reconcile.Listen(unix.NETLINK_ROUTE, append(groups, unix.RTNLGRP_LINK)...)
	if err != nil {
		r.Close()
		return nil, err
	}
	c := newChecker(r, peers)
	c.listener, c.closer = l, r.Close
	return c, nil
}

func newChecker(r resolver, peers func() []netip.Prefix) *Checker {
	return &Checker{resolver: r, peers: peers, changed: reconcile.NewSignal(), stale: true}
}

// Close releases the sockets. Run must have returned.
func (c *Checker) Close() error {
	c.closer()
	return c.listener.Close()
}

// PeersChanged makes Run look up the peers that are new.
func (c *Checker) PeersChanged() { c.changed.Set() }

// Run looks up all subnets at first, after changes of routes and rules, and every
// few minutes, until ctx ends (nil).
func (c *Checker) Run(ctx context.Context) error {
	c.changed.Set()
	return reconcile.Loop{
		Task: "check routes to peers", Changed: c.changed,
		Interval: checkInterval, Burst: checkBurst, Every: checkEvery,
		Watch: func(ctx context.Context, changed func()) error {
			return c.listener.Run(ctx, concerns, func() { c.invalidate(); changed() })
		},
		Step: c.step,
	}.Run(ctx)
}

func (c *Checker) invalidate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = true
}

// concerns reports whether a datagram may announce that packets take another way.
// A new route of ours takes no packets from us.
func concerns(datagram []byte) bool {
	messages, err := syscall.ParseNetlinkMessage(datagram)
	if err != nil {
		return true
	}
	for _, m := range messages {
		ours := m.Header.Type == unix.RTM_NEWROUTE && len(m.Data) >= unix.SizeofRtMsg && m.Data[5] == rtnl.Protocol
		if !ours {
			return true
		}
	}
	return false
}

// step looks up what it must, portion by portion, and replaces the problems.
func (c *Checker) step(ctx context.Context) error {
	c.mu.Lock()
	before := c.known
	if c.stale || time.Since(c.full) > checkEvery/2 {
		before, c.full = nil, time.Now()
	}
	c.stale = false
	c.mu.Unlock()
	own := c.resolver.Own()
	now := make(map[netip.Prefix]error)
	began, asked := time.Now(), 0
	for _, p := range c.peers() {
		if problem, known := before[p]; known {
			now[p] = problem
			continue
		}
		now[p] = c.resolver.Peer(p)
		if asked++; asked%portion == 0 {
			if !pause(ctx, max(minPause, time.Since(began)*dutyCycle)) {
				return nil
			}
			began = time.Now()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known, c.err = now, errors.Join(own, summary(now))
	return nil
}

// pause waits, and returns false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// maxNamed is how many peers Check names.
const maxNamed = 3

// Check returns an error with a line for this host's subnet and one for the peers
// if other routes take their packets, by the last lookup.
func (c *Checker) Check() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// summary returns one error for the problems of all peers; nil if there is none.
func summary(known map[netip.Prefix]error) error {
	var wrong []netip.Prefix
	for p, problem := range known {
		if problem != nil {
			wrong = append(wrong, p)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	slices.SortFunc(wrong, netip.Prefix.Compare)
	err := fmt.Errorf("%d of %d peers: %w", len(wrong), len(known), known[wrong[0]])
	if more := wrong[1:min(len(wrong), maxNamed)]; len(more) > 0 {
		err = fmt.Errorf("%w; also %v", err, more)
	}
	return err
}

// Problem returns why packets do not reach a peer, by the last lookup; nil if no
// reason is known.
func (c *Checker) Problem(peer netip.Prefix) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known[peer]
}
