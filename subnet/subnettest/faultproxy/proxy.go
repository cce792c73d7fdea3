// Package faultproxy puts a TCP proxy with faults on demand between a client
// and its server, for tests: what a network does to connections, without one.
//
//	client ──► Proxy ──up──► server
//	       ◄─────────down───
//
// Bytes are held back, not swallowed: TCP sends again what a partition lost, so
// a connection goes on where it was when the partition ends.
package faultproxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Fault is what is wrong with the network. The zero value is a healthy one.
type Fault struct {
	// Refuse answers new connections with a reset; those that are open go on.
	Refuse bool
	// HoldUp lets nothing through from client to server, HoldDown nothing from
	// server to client; both are a partition. New connections are accepted, as
	// the kernel does for a server that does not run on.
	HoldUp, HoldDown bool
	// Delay is added to every chunk, each way.
	Delay time.Duration
}

// Config says where a proxy stands.
type Config struct {
	// Listen opens the client's side, again after each Refuse: it must give the
	// same address each time.
	Listen func(context.Context) (net.Listener, error)
	// Dial opens the server's side.
	Dial func(context.Context) (net.Conn, error)
}

// Proxy forwards connections while its Run does. Its other methods may be
// called from any goroutine.
type Proxy struct {
	config Config

	mu      sync.Mutex // guards what follows
	fault   Fault
	changed chan struct{} // closed at each change of fault
	links   map[*link]bool
}

// New returns a healthy proxy that does not run yet.
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

// Open is how many connections there are.
func (p *Proxy) Open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

// Drop resets every connection, both sides, as a firewall that restarts does.
func (p *Proxy) Drop() {
	for _, l := range p.all() {
		l.reset()
	}
}

// HalfOpen makes every connection one whose server is gone without a word: the
// client's side stays open, and nothing that it sends is ever answered. New
// connections are not touched.
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

// Run forwards connections until ctx ends (nil) or the address cannot be had.
// It returns when every connection is closed.
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

// accept takes connections until they are to be refused, or ctx ends.
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
