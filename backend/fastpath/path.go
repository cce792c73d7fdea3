package fastpath

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/ratelog"
)

// settle is how long changes of the kernel are gathered before a look at it.
const settle = 20 * time.Millisecond

// Path is the fast path of one network. Its methods are safe for concurrent use.
type Path struct {
	config    Config
	device    string // its name
	adopted   bool
	programs  *programs
	windows   *windows
	links     *netlink.Handle
	xfrm      *netlink.Handle
	listeners []*listener
	changed   chan struct{} // holds one token after any number of changes

	mu     sync.Mutex // guards status
	status Status
}

// Status says what the fast path serves.
type Status struct {
	// Containers is the number of addresses that packets are exchanged with.
	Containers int
	// Off are the reasons why some or all packets take the long way.
	Off []string
}

// New loads the programs, or adopts those of an earlier process, which stay at
// work meanwhile. It runs in the network namespace of the device; so does Run.
//
// Errors: errors.Is(err, os.ErrPermission) where capabilities are missing;
// ebpf.ErrNotSupported where the kernel lacks what the programs call.
func New(c Config) (_ *Path, err error) {
	p := &Path{config: c, changed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if p.programs, p.adopted, err = open(c); err != nil {
		return nil, err
	}
	device, err := net.InterfaceByIndex(c.Device)
	if err != nil {
		return nil, fmt.Errorf("find tunnel device: %w", err)
	}
	p.device = device.Name
	if p.windows, err = openWindows(p.programs); err != nil {
		return nil, err
	}
	if p.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route netlink: %w", err)
	}
	// A kernel without IPsec has no such protocol.
	if p.xfrm, err = netlink.NewHandle(unix.NETLINK_XFRM); err != nil && !errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil, fmt.Errorf("open IPsec netlink: %w", err)
	}
	return p, p.listen()
}

// listen opens the listeners before the first look, so that no change is missed.
func (p *Path) listen() error {
	opens := []func() (*listener, error){
		func() (*listener, error) {
			return listen("interfaces", unix.NETLINK_ROUTE, all,
				unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_TC)
		},
		func() (*listener, error) {
			return listen("nftables", unix.NETLINK_NETFILTER, ofNftables, unix.NFNLGRP_NFTABLES)
		},
	}
	if p.xfrm != nil {
		opens = append(opens, func() (*listener, error) {
			return listen("IPsec policies", unix.NETLINK_XFRM, all, xfrmGroupPolicy)
		})
	}
	for _, open := range opens {
		l, err := open()
		if err != nil {
			return err
		}
		p.listeners = append(p.listeners, l)
	}
	return nil
}

const xfrmGroupPolicy = 4 // XFRMNLGRP_POLICY, linux/xfrm.h

// Adopted reports whether the programs were left by an earlier process.
func (p *Path) Adopted() bool { return p.adopted }

// Run keeps the programs up to date with containers and rules, until ctx ends
// (nil) or it fails. It is called once at most. When it returns, all goroutines
// that it started have ended, and the programs stay at work for [lifetime]; after
// an error all packets take the long way.
func (p *Path) Run(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error { return p.windows.run(inner) })
	for _, l := range p.listeners {
		g.Go(func() error { return l.run(inner, p.wake) })
	}
	err := p.follow(inner)
	if err != nil {
		g.Go(func() error { return err }) // ends the others
	}
	if waited := g.Wait(); err == nil {
		err = waited
	}
	if err != nil && ctx.Err() == nil {
		return errors.Join(fmt.Errorf("run fast path: %w", err), p.programs.suspend())
	}
	return nil
}

func (p *Path) wake() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// follow runs on the caller's goroutine, in the network namespace of the device.
func (p *Path) follow(ctx context.Context) error {
	renew := time.NewTicker(renewEvery)
	defer renew.Stop()
	for {
		if err := p.reconcile(); err != nil {
			// A change between two requests fails one of them: look again.
			ratelog.Warningf("reconcile fast path device=%s reason=%q", p.device, err)
			if err := p.programs.suspend(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-renew.C:
			continue
		case <-p.changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(settle):
		}
	}
}

// reconcile makes the programs serve what the kernel has now.
func (p *Path) reconcile() error {
	t, err := discover(p.links, p.config.Subnet)
	if err != nil {
		return err
	}
	f, err := p.inspect(t)
	if err != nil {
		return err
	}
	status := Status{Off: slices.Concat(f.all, f.replyless, t.unfit)}
	var serve []Container
	for _, c := range t.containers {
		if len(f.all) == 0 && f.ports[c.Port] == "" {
			serve = append(serve, c)
		}
	}
	for _, reason := range f.ports {
		if reason != "" {
			status.Off = append(status.Off, reason)
		}
	}
	slices.Sort(status.Off)
	status.Containers = len(serve)
	if len(serve) > 0 {
		if err := track(p.config.Network); err != nil {
			return err
		}
	}
	if err := p.programs.set(serve); err != nil {
		return err
	}
	if err := p.programs.renew(len(f.replyless) > 0); err != nil {
		return err
	}
	if err := p.programs.seal(); err != nil {
		return err
	}
	p.report(status)
	return nil
}

func (p *Path) report(s Status) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(s.Off, p.status.Off) {
		log.Infof("fast path device=%s containers=%d off=%q", p.device, s.Containers, s.Off)
	}
	p.status = s
}

// Status returns what the last look at the kernel has found.
func (p *Path) Status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	return Status{p.status.Containers, slices.Clone(p.status.Off)}
}

// Stats reads the counters.
func (p *Path) Stats() (Stats, error) { return p.programs.stats() }

// Close releases the resources of the process. The programs stay at work for
// [lifetime]. Run must have returned.
func (p *Path) Close() error {
	var errs []error
	for _, l := range p.listeners {
		errs = append(errs, l.close())
	}
	if p.windows != nil {
		errs = append(errs, p.windows.close())
	}
	for _, h := range []*netlink.Handle{p.links, p.xfrm} {
		if h != nil {
			h.Close()
		}
	}
	if p.programs != nil {
		errs = append(errs, p.programs.close())
	}
	return errors.Join(errs...)
}
