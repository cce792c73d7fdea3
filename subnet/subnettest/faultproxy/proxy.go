// Package faultproxy is a TCP proxy between a client and its server, for tests.
// It imitates faults of a network on demand.
//
//	client ──► Proxy ──up──► server
//	       ◄─────────down───
//
// A partition delays bytes and does not drop them: TCP retransmits lost segments,
// so a connection continues when the partition ends.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Fault is a fault of the network. The zero value is a healthy network.
type Fault struct {
	// Refuse answers new connections with a reset; open ones continue.
	Refuse bool
	// HoldUp blocks bytes from client to server, HoldDown from server to client;
	// both are a partition. New connections are accepted, as the kernel does for
	// a stopped server.
	HoldUp, HoldDown bool
	// Delay is added to every chunk in both directions.
	Delay time.Duration
}

// Config is the configuration of a Proxy.
type Config struct {
	// Listen opens the client's side, again after each Refuse. It must return the
	// same address each time.
	Listen func(context.Context) (net.Listener, error)
	// Dial opens the server's side.
	Dial func(context.Context) (net.Conn, error)
}

// Proxy forwards connections while Run runs. Its other methods may be called
// from any goroutine.
type Proxy struct {
	config Config

	mu      sync.Mutex // guards what follows
	fault   Fault
	changed chan struct{} // closed at each change of fault
	links   map[*link]bool
}

// New returns a Proxy without a fault.
func New(c Config) *Proxy {
	return &Proxy{config: c, changed: make(chan struct{}), links: make(map[*link]bool)}
}

// Set replaces the fault.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
	close(p.changed)
	p.changed = make(chan struct{})
}

// Open returns the number of connections.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Drop resets every connection on both sides, like a firewall that restarts.
func (p *Proxy) Drop() {
	for _, l := range p.all() {
		l.reset()
	}
}

// HalfOpen makes the server's side of every connection vanish silently: the
// client's side stays open and never receives an answer. New connections are not
// affected.
func (p *Proxy) HalfOpen() {
	for _, l := range p.all() {
		l.orphan()
	}
}

func (p *Proxy) all() []*link {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []*link
	for l := range p.links {
		all = append(all, l)
	}
	return all
}

func (p *Proxy) now() (Fault, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, p.changed
}

// Run forwards connections until ctx ends (nil) or Listen fails. It returns when
// every connection is closed.
func (p *Proxy) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var links sync.WaitGroup
	defer links.Wait()
	defer cancel()
	for ctx.Err() == nil {
		fault, changed := p.now()
		if fault.Refuse { // without a listener the kernel refuses
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		if err := p.accept(ctx, &links); err != nil {
			return err
		}
	}
	return nil
}

// accept accepts connections until Refuse is set or ctx ends.
func (p *Proxy) accept(ctx context.Context, links *sync.WaitGroup) error {
	listener, err := p.config.Listen(ctx)
	if err != nil {
		return fmt.Errorf("listen for clients: %w", err)
	}
	closing, cancel := context.WithCancel(ctx)
	var watcher sync.WaitGroup
	watcher.Go(func() {
		defer listener.Close()
		for {
			fault, changed := p.now()
			if fault.Refuse {
				return
			}
			select {
			case <-changed:
			case <-closing.Done():
				return
			}
		}
	})
	defer watcher.Wait()
	defer cancel()
	for {
		client, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept client: %w", err)
		}
		links.Go(func() { p.serve(ctx, client) }) // it outlives its listener
	}
}
